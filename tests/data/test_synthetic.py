"""Synthetic volumes: determinism, what their labels hold, and that their topology is at risk yet learnable."""

import csv
import json

import numpy as np
import pytest
import SimpleITK
import tifffile
from scipy.ndimage import binary_dilation, gaussian_filter

from nnunet_topo.data.synthetic import KINDS, make_case, write_synthetic_dataset
from nnunet_topo.data.synthetic_noise import smooth_noise
from nnunet_topo.data.synthetic_scroll import RIM
from nnunet_topo.errors import ConfigError
from nnunet_topo.metrics.betti import betti_errors, betti_numbers


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_case_depends_on_its_arguments_alone(kind):
    first, again = (make_case(kind, size=24, seed=3, index=2) for _ in range(2))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels, again.labels)
    for other in (
        make_case(kind, size=24, seed=4, index=2),
        make_case(kind, size=24, seed=3, index=1),
        make_case(kind, size=24, seed=3, index=2, test=True),
    ):
        assert not np.array_equal(first.truth, other.truth)
        assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("kind", KINDS)
def test_datasets_are_byte_equal_and_cases_do_not_depend_on_their_number(kind, tmp_path):
    options = {"kind": kind, "size": 24, "seed": 5, "progress": False}
    one, _ = write_synthetic_dataset(tmp_path / "one", cases=3, test_cases=1, **options)
    two, _ = write_synthetic_dataset(tmp_path / "two", cases=3, test_cases=1, **options)
    assert content(one) == content(two)
    fewer, _ = write_synthetic_dataset(tmp_path / "fewer", cases=2, test_cases=0, **options)
    volumes = {name: data for name, data in content(fewer).items() if "Tr/" in name}
    assert len(volumes) == (8 if kind == "scroll" else 4)
    assert volumes.items() <= content(one).items()


def test_scroll_labels_have_a_rim_and_unlabelled_regions():
    case = make_case("scroll", size=48, seed=0, index=0)
    inside = case.labels[RIM:-RIM, RIM:-RIM, RIM:-RIM]
    assert set(np.unique(inside)) == {0, 1, 2}
    assert (inside == 2).mean() == pytest.approx(0.3, abs=0.01)
    rim = np.ones(case.labels.shape, bool)
    rim[RIM:-RIM, RIM:-RIM, RIM:-RIM] = False
    assert (case.labels[rim] == 2).all()
    labelled = case.labels != 2
    assert np.array_equal(case.labels[labelled] == 1, case.truth[labelled])
    assert case.image.dtype == np.uint8


def test_held_out_scrolls_are_labelled_completely():
    case = make_case("scroll", size=32, seed=0, index=0, test=True)
    assert set(np.unique(case.labels)) == {0, 1}
    assert np.array_equal(case.labels == 1, case.truth)


def test_windings_come_within_two_voxels_without_touching():
    case = make_case("scroll", size=64, seed=0, index=0)
    row = case.truth.reshape(-1, 64)
    narrow = row[:, :-3] & ~row[:, 1:-2] & row[:, 3:]
    assert np.count_nonzero(narrow) > 200
    assert 0.1 < case.truth.mean() < 0.35
    assert betti_numbers(case.truth)[0] <= 3
    # One step of dilation bridges the gaps, which the truth leaves open.
    assert betti_numbers(binary_dilation(case.truth))[1] > 3 * betti_numbers(case.truth)[1]


@pytest.mark.parametrize("size", [24, 32, 64])
def test_vessels_are_one_tree_with_loops(size):
    for index in range(3):
        case = make_case("vessels", size=size, seed=1, index=index)
        components, loops, _ = betti_numbers(case.truth)
        assert components == 1
        assert loops >= 1
        assert 0.01 < case.truth.mean() < 0.12
        assert np.array_equal(case.labels, case.truth)


def test_anisotropic_vessels_are_flattened_along_the_coarse_axis():
    case = make_case("vessels", size=32, seed=1, index=0, spacing=(4.0, 1.0, 1.0))
    assert betti_numbers(case.truth)[0] == 1
    extents = [np.abs(np.diff(case.truth.astype(np.int8), axis=axis)).sum() for axis in range(3)]
    assert extents[0] > 1.25 * max(extents[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_threshold_breaks_the_topology_though_the_image_shows_the_label(kind):
    case = make_case(kind, size=64, seed=2, index=0)
    smooth = gaussian_filter(case.image.astype(float), 1)
    assert np.corrcoef(smooth.ravel(), case.truth.ravel())[0, 1] > 0.45
    candidates = [smooth > threshold for threshold in range(80, 140, 5)]
    dice = [2 * (mask & case.truth).sum() / (mask.sum() + case.truth.sum()) for mask in candidates]
    best = candidates[int(np.argmax(dice))]
    assert 0.5 < max(dice) < 0.85
    assert sum(betti_errors(best, case.truth)) > 10


def test_dataset_on_disk(tmp_path):
    folder, rows = write_synthetic_dataset(tmp_path, kind="scroll", cases=2, test_cases=1, size=24, progress=False)
    assert folder == tmp_path / "Dataset998_SyntheticScroll"
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name]
    description = json.loads((folder / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "surface": 1, "ignore": 2}
    assert (description["numTraining"], description["file_ending"]) == (2, ".tif")
    case = make_case("scroll", size=24, seed=0, index=1)
    assert np.array_equal(tifffile.imread(folder / "imagesTr" / "scroll_001_0000.tif"), case.image)
    assert np.array_equal(tifffile.imread(folder / "labelsTr" / "scroll_001.tif"), case.labels)
    for part in ("imagesTr/scroll_000", "labelsTr/scroll_001", "imagesTs/scroll_test_000", "labelsTs/scroll_test_000"):
        assert json.loads((folder / f"{part}.json").read_text()) == {"spacing": [1.0, 1.0, 1.0]}
    with (folder / "topology.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["case"] for row in table] == ["scroll_000", "scroll_001", "scroll_test_000"] == [r.case for r in rows]
    assert [int(table[1][name]) for name in ("b0", "b1", "b2")] == list(betti_numbers(case.truth))
    labelled = [int(table[1][f"labelled_{name}"]) for name in ("b0", "b1", "b2")]
    assert labelled == list(betti_numbers(case.labels == 1))
    assert float(table[1]["ignored_share"]) == pytest.approx((case.labels == 2).mean(), abs=1e-6)


def test_vessels_on_disk_keep_their_spacing(tmp_path):
    options = {"kind": "vessels", "cases": 1, "test_cases": 0, "size": 24, "spacing": (2.0, 1.0, 0.5)}
    folder, _ = write_synthetic_dataset(tmp_path, dataset_id=7, name="Tree", progress=False, **options)
    assert folder.name == "Dataset007_Tree"
    image = SimpleITK.ReadImage(str(folder / "imagesTr" / "vessels_000_0000.nii.gz"))
    label_image = SimpleITK.ReadImage(str(folder / "labelsTr" / "vessels_000.nii.gz"))
    assert image.GetSpacing() == label_image.GetSpacing() == (0.5, 1.0, 2.0)
    case = make_case("vessels", size=24, seed=0, index=0, spacing=(2.0, 1.0, 0.5))
    assert np.allclose(SimpleITK.GetArrayFromImage(image), case.image)
    assert np.array_equal(SimpleITK.GetArrayFromImage(label_image), case.labels)


def test_an_existing_dataset_is_kept_unless_forced(tmp_path):
    options = {"kind": "vessels", "cases": 1, "test_cases": 0, "size": 24, "progress": False}
    folder, _ = write_synthetic_dataset(tmp_path, **options)
    before = content(folder)
    with pytest.raises(ConfigError, match="--force"):
        write_synthetic_dataset(tmp_path, seed=1, **options)
    assert content(folder) == before
    write_synthetic_dataset(tmp_path, seed=1, force=True, **options)
    assert content(folder).keys() == before.keys()
    assert content(folder) != before


def test_foreign_folders_are_never_replaced(tmp_path):
    folder = tmp_path / "Dataset998_SyntheticVessels"
    folder.mkdir()
    (folder / "precious.txt").write_text("mine")
    options = {"kind": "vessels", "cases": 1, "test_cases": 0, "size": 24, "progress": False, "force": True}
    with pytest.raises(ConfigError, match="did not write"):
        write_synthetic_dataset(tmp_path, **options)
    assert content(folder) == {"precious.txt": b"mine"}
    with pytest.raises(ConfigError, match="used by Dataset998_SyntheticVessels"):
        write_synthetic_dataset(tmp_path, name="Other", **options)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize("content", ["[]", "{", "null"])
def test_a_damaged_description_is_a_foreign_folder(tmp_path, content):
    options = {"kind": "vessels", "cases": 1, "test_cases": 0, "size": 24, "progress": False, "force": True}
    folder = tmp_path / "Dataset998_SyntheticVessels"
    folder.mkdir()
    (folder / "dataset.json").write_text(content)
    with pytest.raises(ConfigError, match="this command did not write"):
        write_synthetic_dataset(tmp_path, **options)


def test_a_place_that_cannot_be_written_to_is_a_config_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="expected a place to write to"):
        write_synthetic_dataset(tmp_path / "file", kind="scroll", cases=1, size=24, progress=False)


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("nnunet_topo.data.synthetic._topology", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic_dataset(tmp_path, kind="scroll", cases=1, size=24, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "scrol"}, "kind: expected one of scroll, vessels, got 'scrol'. Did you mean 'scroll'"),
        ({"size": 23}, "size: expected 24 to 256 voxels, got 23"),
        ({"size": 257}, "size: expected 24 to 256"),
        ({"seed": -1}, "seed: expected an integer >= 0, got -1"),
        ({"cases": 0}, "cases: expected at least 1"),
        ({"test_cases": -1}, "cases: expected at least 1 training and 0 test"),
        ({"dataset_id": 1000}, "dataset_id: expected 1 to 999, got 1000"),
        ({"name": "a b"}, "name: expected letters"),
        ({"name": "../x"}, "name: expected letters"),
        ({"spacing": (2.0, 1.0, 1.0)}, "spacing: expected equal values for a scroll"),
        ({"kind": "vessels", "spacing": (0.0, 1.0, 1.0)}, "spacing: expected three numbers > 0"),
        ({"kind": "vessels", "spacing": (20.0, 1.0, 1.0)}, "tenfold"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(options, message, tmp_path):
    with pytest.raises(ConfigError) as raised:
        write_synthetic_dataset(tmp_path, **{"kind": "scroll", **options})
    assert message in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scale", [0.6, 3.0, (1.0, 8.0, 20.0)])
def test_smooth_noise_is_standardised_and_varies_at_its_scale(scale):
    field = smooth_noise(np.random.default_rng(0), (30, 40, 50), scale)
    assert field.shape == (30, 40, 50)
    assert field.dtype == np.float32
    assert field.mean() == pytest.approx(0, abs=1e-3)
    assert field.std() == pytest.approx(1, abs=1e-3)
    steps = [float(np.abs(np.diff(field, axis=axis)).mean()) for axis in range(3)]
    if isinstance(scale, tuple):
        assert steps[0] > 1.5 * steps[1] > 1.5 * steps[2]
    else:
        wider = smooth_noise(np.random.default_rng(0), (30, 40, 50), 4 * scale)
        assert np.abs(np.diff(wider, axis=0)).mean() < 0.6 * steps[0]
