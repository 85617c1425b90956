"""All checks of a dataset: dataset.json, file names, the contents of every raw case, the preprocessed data."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_topo.data.check_case import READ_ERRORS, CaseReport, Expected, check_case
from nnunet_topo.data.check_description import check_description
from nnunet_topo.data.check_finding import Finding, count_errors
from nnunet_topo.data.check_layout import CaseFiles, list_cases, missing_channels, missing_sidecars
from nnunet_topo.data.check_preprocessed import check_preprocessed, require_configurations
from nnunet_topo.data.labels import declared_labels
from nnunet_topo.data.raw import find_dataset, read_json
from nnunet_topo.errors import ConfigError, DataError

SUSPICIOUS_SHARE = 0.4  # a foreground label with a larger mean share that lies on all faces of all cases is suspect


@dataclass(frozen=True)
class DatasetReport:
    """Result of a check.

    Attributes:
        dataset: name of the dataset's folder.
        training_cases: cases with an image in the raw dataset.
        test_cases: cases in imagesTs.
        preprocessed: whether preprocessed data was looked at.
        findings: errors first.
    """

    dataset: str
    training_cases: int
    test_cases: int
    preprocessed: bool
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        """Number of findings that are errors."""
        return count_errors(self.findings)


def check_dataset(
    dataset: int | str,
    *,
    raw: Path | None,
    preprocessed: Path | None,
    configurations: Sequence[str] | None = None,
    plans_name: str | None = None,
    empty_allowed: bool = False,
    processes: int = 1,
    progress: bool = True,
) -> DatasetReport:
    """Check a dataset; what is wrong with its files is reported, not raised.

    Args:
        dataset: id or folder name.
        raw: nnUNet_raw, None to leave it out.
        preprocessed: nnUNet_preprocessed, None to leave it out.
        configurations: of the plans; None for all that were preprocessed.
        plans_name: as in `nnUNetPlans`; None for all plans of the dataset.
        empty_allowed: cases without foreground are worth a warning only.
        processes: cases read at once.
        progress: show a progress bar.

    Returns:
        The report.

    Raises:
        ConfigError: there is no such dataset, no such plans, or no such configuration.
    """
    raw_folder = find_dataset(raw, dataset) if raw else None
    preprocessed_folder = find_dataset(preprocessed, dataset) if preprocessed else None
    folder = raw_folder or preprocessed_folder
    if folder is None:
        places = " or ".join(str(place) for place in (raw, preprocessed) if place) or "nnUNet_raw (not set)"
        raise ConfigError(f"dataset: expected {dataset} in {places}, got no such folder. Check -d and nnUNet_raw.")
    if configurations is not None and preprocessed_folder is None:
        raise ConfigError(f"configuration: expected preprocessed data of {dataset}, got none. Preprocess it first.")
    if preprocessed_folder is not None:
        require_configurations(preprocessed_folder, plans_name, configurations)
    findings: list[Finding] = []
    if raw is not None and raw_folder is None:
        message = "expected the raw dataset, got no such folder: no image and no label of it was checked."
        mend = "Point nnUNet_raw to the folder that holds it, unless only the preprocessed data is on this machine."
        findings.append(Finding("warning", "missing-folder", str(raw / folder.name), message, mend))
    content = _description(folder / "dataset.json", findings)
    training: list[CaseFiles] = []
    test: list[CaseFiles] = []
    thickness_mm: dict[int, list[float]] = {}
    if content is not None and raw_folder is not None:
        training, test, found = list_cases(raw_folder, content)
        findings += found
        found, thickness_mm = _check_raw(raw_folder, content, training, test, empty_allowed, processes, progress)
        findings += found
    if content is not None and preprocessed_folder is not None:
        findings += check_preprocessed(
            preprocessed_folder,
            content,
            plans_name=plans_name,
            configurations=configurations,
            raw_cases={case.name for case in training} or None,
            processes=processes,
            thickness_mm=thickness_mm,
        )
    return DatasetReport(
        folder.name, len(training), len(test), preprocessed_folder is not None, tuple(sorted(set(findings)))
    )


def _description(path: Path, findings: list[Finding]) -> Mapping[str, Any] | None:
    try:
        content = read_json(path)
    except DataError as error:
        findings.append(Finding("error", "dataset-json", str(path), str(error), "Write it as nnU-Net's manual shows."))
        return None
    if not isinstance(content, dict):
        message = f"expected a JSON object, got {type(content).__name__}."
        findings.append(Finding("error", "dataset-json", str(path), message, "Write it as nnU-Net's manual shows."))
        return None
    findings += check_description(path, content)
    return content


def _check_raw(
    folder: Path,
    content: Mapping[str, Any],
    training: list[CaseFiles],
    test: list[CaseFiles],
    empty_allowed: bool,
    processes: int,
    progress: bool,
) -> tuple[list[Finding], dict[int, list[float]]]:
    """Findings about the raw cases, and the thickness of each label in every training case."""
    cases = [*training, *test]
    ending = content.get("file_ending")
    findings = [finding for case in cases for finding in missing_channels(case, str(ending))]
    if not cases:
        return findings, {}
    try:
        labels = declared_labels(content)
    except DataError:
        labels = None  # reported with dataset.json; without it labels mean nothing
    reader = reader_of(content, (case.images[0] for case in cases))
    if reader is None:
        message = "expected files that one of nnU-Net's readers opens, got none among the images."
        mend = f"Check that the images are intact files of the format {ending}."
        return [*findings, Finding("error", "unreadable", str(folder / "imagesTr"), message, mend)], {}
    if reader.__name__ == "Tiff3DIO":
        findings += [finding for case in cases for finding in missing_sidecars(case, str(ending))]
    channels = content.get("channel_names", content.get("modality"))
    ignore = content["labels"].get("ignore") if labels else None
    expected = Expected(
        reader,
        len(channels) if isinstance(channels, Mapping) else None,
        labels or frozenset(),
        ignore if isinstance(ignore, int) else None,
        str(ending),
        empty_allowed,
    )
    if labels is None:
        cases = [CaseFiles(case.name, case.images, None) for case in cases]
    reports = {report.name: report for report in _run(cases, expected, processes, progress)}
    findings += [finding for case in cases for finding in reports[case.name].findings]
    if labels is not None:
        trained = [reports[case.name] for case in training if reports[case.name].counts]
        findings += _check_all_cases(folder, content, trained, expected)
    thickness_mm: dict[int, list[float]] = {}
    for report in reports.values():
        for value, thickness in report.thickness_mm.items():
            thickness_mm.setdefault(value, []).append(thickness)
    return findings, thickness_mm


def reader_of(content: Mapping[str, Any], files: Iterable[Path]) -> type[Any] | None:
    """nnU-Net's reader for these files: of five that can be read, the majority's.

    nnU-Net asks one file only. A truncated one misleads it: half of a tif stack may pass for a 2-D image.

    Args:
        content: of dataset.json; `file_ending`, and `overwrite_image_reader_writer` if there is one.
        files: images or segmentations of one format.

    Returns:
        The class, None if no file can be read.
    """
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    votes: Counter[type[Any]] = Counter()
    for file in files:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                reader = determine_reader_writer_from_dataset_json(dict(content), str(file), verbose=False)
            except READ_ERRORS:
                continue
        votes[reader] += 1
        if votes.total() == 5:
            break
    return votes.most_common(1)[0][0] if votes else None


def _run(cases: Sequence[CaseFiles], expected: Expected, processes: int, progress: bool) -> Iterator[CaseReport]:
    bar = tqdm(total=len(cases), desc="reading cases", unit="case", disable=not progress)
    with bar:
        if processes <= 1 or len(cases) == 1:
            for case in cases:
                yield check_case(case, expected)
                bar.update()
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(cases)), mp_context=context) as pool:
            waiting = {pool.submit(check_case, case, expected): case for case in cases}
            for future in as_completed(waiting):
                try:
                    yield future.result()
                except BrokenProcessPool:
                    case = waiting[future]
                    report = CaseReport(case.name)
                    message = "a reading process died while this or another case was read (out of memory?)."
                    report.add("error", "unreadable", case.images[0], message, "Try again with -np 1.")
                    yield report
                bar.update()


def _check_all_cases(
    folder: Path, content: Mapping[str, Any], reports: Sequence[CaseReport], expected: Expected
) -> Iterator[Finding]:
    """Findings that need the labels of all training cases together."""
    if not reports:
        return
    description = str(folder / "dataset.json")
    present = {value for report in reports for value in report.counts}
    for value in sorted(expected.labels - present):
        name = next((name for name, declared in content["labels"].items() if declared == value), str(value))
        if value == expected.ignore:
            mend = "Remove it from dataset.json unless unlabelled voxels really exist; else check the conversion."
            message = f"ignore: expected label {value} in some case, got it in none."
            yield Finding("warning", "ignore-label", description, message, mend)
        elif value != 0:
            mend = "Check the conversion, or remove the label from dataset.json and renumber the others."
            message = f"labels: expected '{name}' ({value}) in some case, got it in none."
            yield Finding("warning", "unused-label", description, message, mend)
    for value in sorted(present & expected.labels - {0, expected.ignore}):
        shares = [report.counts.get(value, 0) / max(1, sum(report.counts.values())) for report in reports]
        if sum(shares) / len(shares) > SUSPICIOUS_SHARE and all(value in report.on_every_face for report in reports):
            message = (
                f"labels: value {value} is declared as foreground, but covers {min(shares):.0%} to {max(shares):.0%} "
                "of every case and lies on all faces: it looks like a region that nobody labelled."
            )
            mend = f'If so, declare it as "ignore": {value} (it must be the highest value), and preprocess again.'
            yield Finding("warning", "ignore-label", description, message, mend)
