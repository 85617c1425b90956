"""`check_dataset` on small datasets, each broken in one way: the file, the check and the mend are named."""

import json

import numpy as np
import pytest
import SimpleITK
import tifffile
from skimage import io

from nnunet_topo.data.check import check_dataset
from nnunet_topo.errors import ConfigError

SHAPE = (8, 9, 10)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".tif"):
        tifffile.imwrite(path, array, compression="zlib")
    elif path.name.endswith(".png"):
        io.imsave(path, array, check_contrast=False)
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path))


def label_map():
    array = np.full(SHAPE, 2, np.uint8)
    array[2:-2, 2:-2, 2:-2] = 0
    array[3, 3:6, 3:7] = 1
    return array


class Dataset:
    """A healthy tif dataset with an ignore label, to be broken by a test."""

    def __init__(self, root, ending=".tif", cases=3):
        self.root, self.ending = root, ending
        self.folder = root / "raw" / "Dataset100_Surface"
        generator = np.random.default_rng(0)
        for index in range(cases):
            save(self.image(index), generator.integers(0, 255, SHAPE).astype(np.uint8))
            save(self.label(index), label_map())
            if ending == ".tif":
                self.sidecar("imagesTr", index).write_text('{"spacing": [1, 1, 1]}')
                self.sidecar("labelsTr", index).write_text('{"spacing": [1, 1, 1]}')
        self.describe(numTraining=cases)

    def image(self, index, channel=0):
        return self.folder / "imagesTr" / f"case_{index}_{channel:04d}{self.ending}"

    def label(self, index):
        return self.folder / "labelsTr" / f"case_{index}{self.ending}"

    def sidecar(self, part, index):
        return self.folder / part / f"case_{index}.json"

    def describe(self, **changes):
        path = self.folder / "dataset.json"
        content = {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "surface": 1, "ignore": 2},
            "numTraining": 3,
            "file_ending": self.ending,
        }
        content.update(changes)
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    def check(self, **options):
        return check_dataset(100, raw=self.root / "raw", preprocessed=None, progress=False, **options)


@pytest.fixture
def dataset(tmp_path):
    return Dataset(tmp_path)


def only(report, check, severity="error"):
    """The one finding of a report, which must be of that check and severity."""
    assert [(finding.check, finding.severity) for finding in report.findings] == [(check, severity)], report.findings
    return report.findings[0]


@pytest.mark.parametrize("ending", [".tif", ".nii.gz", ".nrrd", ".mha"])
def test_a_healthy_dataset_has_no_findings(tmp_path, ending):
    report = Dataset(tmp_path, ending).check()
    assert report.findings == ()
    assert (report.dataset, report.training_cases, report.errors) == ("Dataset100_Surface", 3, 0)


def test_colour_images_of_two_dimensions_are_healthy(tmp_path):
    folder = tmp_path / "raw" / "Dataset100_Vessels"
    for index in range(2):
        save(folder / "imagesTr" / f"eye_{index}_0000.png", np.full((12, 14, 3), index, np.uint8))
        label = np.zeros((12, 14), np.uint8)
        label[5] = 1
        save(folder / "labelsTr" / f"eye_{index}.png", label)
    description = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "vessel": 1}}
    (folder / "dataset.json").write_text(json.dumps({**description, "numTraining": 2, "file_ending": ".png"}))
    assert check_dataset(100, raw=tmp_path / "raw", preprocessed=None, progress=False).findings == ()


def test_several_processes_find_the_same(dataset):
    dataset.label(1).write_bytes(b"")
    findings = dataset.check(processes=1).findings
    assert len(findings) == 1
    assert dataset.check(processes=2).findings == findings


def test_undeclared_labels_are_counted(dataset):
    array = label_map()
    array[4, 4, 4:6] = 7
    save(dataset.label(1), array)
    finding = only(dataset.check(), "undeclared-label")
    assert finding.file == str(dataset.label(1))
    assert "declared values 0, 1, 2, got 7 (2 voxels)" in finding.message


def test_an_undeclared_unlabelled_value_gets_the_hint(dataset):
    dataset.describe(labels={"background": 0, "surface": 1})
    report = dataset.check()
    assert {finding.check for finding in report.findings} == {"undeclared-label"}
    assert report.errors == 3
    assert all('"ignore": 2' in finding.mend for finding in report.findings)


@pytest.mark.parametrize(
    ("labels", "severity", "text"),
    [
        ({"background": 0, "surface": 1, "Ignore": 2}, "error", "exactly 'ignore', got 'Ignore'"),
        ({"background": 0, "surface": 1, "ignored": 2}, "error", "exactly 'ignore', got 'ignored'"),
        ({"background": 0, "surface": 1, "unlabelled": 2}, "error", "'unlabelled' sounds like"),
        ({"background": 0, "surface": 1, "ignore": [2]}, "error", "expected one integer, got [2]"),
        ({"background": 0, "surface": 2, "ignore": 1}, "error", "ignore: expected 3"),
    ],
)
def test_a_misdeclared_ignore_label(dataset, labels, severity, text):
    dataset.describe(labels=labels)
    findings = [finding for finding in dataset.check().findings if finding.check == "ignore-label"]
    assert any(finding.severity == severity and text in finding.message for finding in findings), findings
    assert findings[0].file.endswith("dataset.json")


def test_an_ignore_label_that_is_nowhere(dataset):
    for index in range(3):
        array = label_map()
        array[array == 2] = 0
        save(dataset.label(index), array)
    finding = only(dataset.check(), "ignore-label", "warning")
    assert "in none" in finding.message


def test_a_declared_class_that_is_nowhere(dataset):
    dataset.describe(labels={"background": 0, "surface": 1, "other": 2, "fibre": 3, "ignore": 4})
    report = dataset.check()
    messages = [finding.message for finding in report.findings if finding.check == "unused-label"]
    assert messages == ["labels: expected 'fibre' (3) in some case, got it in none."]


def test_unlabelled_regions_declared_as_a_class_are_suspected(dataset):
    dataset.describe(labels={"background": 0, "surface": 1, "papyrus": 2})
    finding = only(dataset.check(), "ignore-label", "warning")
    assert "value 2 is declared as foreground, but covers" in finding.message
    assert '"ignore": 2' in finding.mend
    array = label_map()
    array[0] = 0
    save(dataset.label(0), array)
    assert dataset.check().findings == ()


@pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
def test_missing_sidecars(dataset, part):
    dataset.sidecar(part, 2).unlink()
    finding = only(dataset.check(), "missing-sidecar")
    assert finding.file == str(dataset.sidecar(part, 2))
    assert '{"spacing": [z, y, x]}' in finding.mend


@pytest.mark.parametrize("content", ["{", "{}", '{"spacing": [1, 1]}', '{"spacing": [0, 1, 1]}'])
def test_damaged_sidecars(dataset, content):
    dataset.sidecar("labelsTr", 0).write_text(content)
    finding = only(dataset.check(), "unreadable")
    assert finding.file == str(dataset.label(0))


def test_a_sidecar_that_disagrees(dataset):
    dataset.sidecar("labelsTr", 1).write_text('{"spacing": [1, 1, 2]}')
    finding = only(dataset.check(), "spacing")
    assert "(1.0, 1.0, 1.0) of the image, got (1.0, 1.0, 2.0)" in finding.message


def test_test_images_are_checked_too(dataset):
    save(dataset.folder / "imagesTs" / "new_0000.tif", np.zeros(SHAPE, np.uint8))
    report = dataset.check()
    assert report.test_cases == 1
    assert only(report, "missing-sidecar").file.endswith("imagesTs/new.json")


def test_a_missing_label(dataset):
    dataset.label(1).unlink()
    finding = only(dataset.check(), "missing-label")
    assert finding.file == str(dataset.label(1))


def test_a_label_without_image(dataset):
    dataset.image(1).unlink()
    findings = dataset.check().findings
    assert [(finding.check, finding.severity) for finding in findings] == [
        ("missing-image", "error"),
        ("number-of-cases", "error"),
    ]
    assert findings[0].file == str(dataset.label(1))
    assert "number of training cases, got 3" in findings[1].message


def test_missing_channels_are_named(dataset):
    dataset.describe(channel_names={"0": "CT", "1": "PET"})
    for index in range(2):
        save(dataset.image(index, 1), np.zeros(SHAPE, np.uint8))
    finding = only(dataset.check(), "missing-channel")
    assert finding.file == str(dataset.image(2))
    assert "Add case_2_0001.tif" in finding.mend
    dataset.image(0, 0).unlink()
    named = [finding.file for finding in dataset.check().findings if "channel 0 of case_0" in finding.message]
    assert named == [str(dataset.image(0, 0))]


def test_shapes_that_differ(dataset):
    save(dataset.label(0), label_map()[:-1])
    finding = only(dataset.check(), "shape")
    assert "(8, 9, 10) of the image, got (7, 9, 10)" in finding.message


def test_cases_without_foreground(dataset):
    array = label_map()
    array[array == 1] = 0
    save(dataset.label(0), array)
    assert only(dataset.check(), "no-foreground").file == str(dataset.label(0))
    only(dataset.check(empty_allowed=True), "no-foreground", "warning")


def test_cases_that_are_ignored_completely(dataset):
    save(dataset.label(0), np.full(SHAPE, 2, np.uint8))
    assert only(dataset.check(), "all-ignored").file == str(dataset.label(0))


@pytest.mark.parametrize("ending", [".tif", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("keep", [0, 0.5, 0.9])
@pytest.mark.parametrize("what", ["image", "label"])
def test_truncated_files_are_named_and_the_rest_is_read(tmp_path, ending, keep, what):
    dataset = Dataset(tmp_path, ending)
    path = getattr(dataset, what)(0)  # the first: the reader must not be chosen by a damaged file
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    save(dataset.label(2), np.full(SHAPE, 2, np.uint8))
    findings = {finding.check: finding for finding in dataset.check().findings}
    assert findings["all-ignored"].file == str(dataset.label(2))
    assert findings.keys() in ({"all-ignored", "unreadable"}, {"all-ignored", "shape"})
    assert (findings.get("unreadable") or findings["shape"]).file in (str(path), str(dataset.label(0)))


def test_no_readable_image_at_all(dataset):
    for index in range(3):
        dataset.image(index).write_bytes(b"nothing")
    finding = only(dataset.check(), "unreadable")
    assert finding.file.endswith("imagesTr")


def test_wrong_endings_and_names(dataset):
    save(dataset.folder / "imagesTr" / "case_9_0000.nii.gz", np.zeros(SHAPE, np.uint8))
    save(dataset.folder / "imagesTr" / "case_8.tif", np.zeros(SHAPE, np.uint8))
    save(dataset.folder / "labelsTr" / "case_2_0000.tif", label_map())
    (dataset.folder / "imagesTr" / "notes.txt").write_text("free to be here")
    checks = sorted((finding.check, finding.file.split("/")[-1]) for finding in dataset.check().findings)
    assert checks == [
        ("file-ending", "case_9_0000.nii.gz"),
        ("image-name", "case_8.tif"),
        ("missing-image", "case_2_0000.tif"),
    ]


def test_values_that_are_no_labels(tmp_path):
    dataset = Dataset(tmp_path, ".nrrd")  # ITK replaces NaN when it reads NIfTI
    broken = label_map().astype(np.float32)
    broken[4, 4, 4] = 0.5
    save(dataset.label(0), broken)
    image = np.zeros(SHAPE, np.float32)
    image[0, 0, 0] = np.nan
    save(dataset.image(1), image)
    report = dataset.check()
    assert [finding.check for finding in report.findings] == ["image-values", "label-values"]


def test_a_mask_of_0_and_255(dataset):
    save(dataset.label(0), (label_map() == 1).astype(np.uint8) * 255)
    finding = only(dataset.check(), "undeclared-label")
    assert "255" in finding.message
    assert "0 and 1" in finding.mend


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"numTraining": 5}, "numTraining: expected 3"),
        ({"labels": None}, "labels: expected this key"),
        ({"labels": {"0": "background"}}, "labels: expected an integer"),
        ({"labels": {"surface": 1, "ignore": 2}}, "'background' to be 0"),
        ({"labels": {"background": 0, "surface": 1, "x": 4, "ignore": 5}}, "consecutive values from 0, got [0, 1, 4]"),
        ({"labels": {"background": 0, "a": [1, 2], "b": 2}}, "regions_class_order: expected 2 values"),
        ({"file_ending": "tif"}, "file_ending: expected a dot"),
        ({"channel_names": None}, "channel_names: expected a mapping"),
        ({"channel_names": {"1": "CT"}}, "channel_names: expected keys 0 to 0, got 1"),
        ({"channel_names": 5}, "channel_names: expected a mapping"),
        ({"numTraining": "3"}, "numTraining: expected an integer, got '3'"),
        (
            {"dataset": {"case_0": {"images": 5, "label": "labelsTr/case_0.tif"}}},
            "expected images and label of case case_0",
        ),
        ({"dataset": {"case_0": {"images": "imagesTr/case_0_0000.tif", "label": "x"}}}, "expected images and label of"),
        ({"dataset": {"case_0": {"images": [3], "label": "labelsTr/case_0.tif"}}}, "expected images and label of"),
        ({"dataset": {"case_0": {"images": [], "label": 3}}}, "expected images and label of case case_0"),
    ],
)
def test_mistakes_in_the_description(dataset, changes, text):
    dataset.describe(**changes)
    report = dataset.check()
    assert any(text in finding.message and finding.severity == "error" for finding in report.findings), report.findings


def test_more_than_ten_channels_are_healthy(tmp_path):
    dataset = Dataset(tmp_path, ".nii.gz", cases=1)
    for channel in range(1, 12):
        save(dataset.image(0, channel), np.ones(SHAPE, np.uint8))
    dataset.describe(channel_names={str(channel): "MRI" for channel in range(12)}, numTraining=1)
    assert dataset.check().findings == ()


@pytest.mark.parametrize("ending", [None, 5, "tif"])
def test_without_a_file_ending_nothing_else_is_said(dataset, ending):
    path = dataset.folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "file_ending": ending}))
    assert only(dataset.check(), "file-ending").message == f"file_ending: expected a dot and letters, got {ending!r}."


@pytest.mark.parametrize("content", ["{", "[]", None])
def test_no_usable_description(dataset, content):
    path = dataset.folder / "dataset.json"
    path.unlink() if content is None else path.write_text(content)
    assert only(dataset.check(), "dataset-json").file == str(path)


def test_cases_listed_in_the_description(dataset):
    listed = {
        f"case_{index}": {"images": [f"imagesTr/case_{index}_0000.tif"], "label": f"labelsTr/case_{index}.tif"}
        for index in range(3)
    }
    dataset.describe(dataset=listed)
    assert dataset.check().findings == ()
    dataset.label(1).unlink()
    assert only(dataset.check(), "missing-label").file == str(dataset.label(1))


def test_what_does_not_exist_is_a_config_error(dataset, tmp_path):
    with pytest.raises(ConfigError, match="expected 101 in"):
        check_dataset(101, raw=tmp_path / "raw", preprocessed=None)
    with pytest.raises(ConfigError, match="expected an id such as 100"):
        check_dataset("abc", raw=tmp_path / "raw", preprocessed=None)
    with pytest.raises(ConfigError, match="Preprocess it first"):
        dataset.check(configurations=["3d_fullres"])
    (tmp_path / "raw" / "Dataset100_Other").mkdir()
    with pytest.raises(ConfigError, match="expected one folder"):
        dataset.check()
