"""Checks of one raw case by reading it with the reader that nnU-Net would take."""

from __future__ import annotations

import contextlib
import gzip
import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_topo.data.check_finding import Finding, Severity
from nnunet_topo.data.check_layout import CaseFiles
from nnunet_topo.data.thickness import typical_thickness
from nnunet_topo.errors import DataError

# What image libraries raise on damaged files, collected by damaging files of each format. PNG's is a SyntaxError.
READ_ERRORS = (
    OSError, RuntimeError, ValueError, AssertionError, LookupError, EOFError, SyntaxError, TypeError, MemoryError,
    AttributeError, ArithmeticError, struct.error, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Expected:
    """What dataset.json leads to expect of every case.

    Attributes:
        reader: class of nnU-Net's reader.
        channels: number of channels, None where dataset.json does not say it.
        labels: declared values, the ignore label included.
        ignore: the ignore label, None where none is declared.
        file_ending: as in `.tif`.
        empty_allowed: cases without foreground are only worth a warning.
    """

    reader: type[Any]
    channels: int | None
    labels: frozenset[int]
    ignore: int | None
    file_ending: str
    empty_allowed: bool = False


@dataclass
class CaseReport:
    """What one case holds.

    Attributes:
        name: identifier.
        findings: what is wrong with it.
        counts: voxels by label value; empty when the label was not read.
        on_every_face: label values that occur on each face of the volume.
        thickness_mm: typical thickness of each foreground label.
    """

    name: str
    findings: list[Finding] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)
    on_every_face: frozenset[int] = frozenset()
    thickness_mm: dict[int, float] = field(default_factory=dict)

    def add(self, severity: Severity, check: str, path: Path, message: str, mend: str) -> None:
        """Append a finding."""
        self.findings.append(Finding(severity, check, str(path), message, mend))


def check_case(files: CaseFiles, expected: Expected) -> CaseReport:
    """Read a case and report what is wrong with it; never raises for a damaged file.

    Args:
        files: of the case.
        expected: what dataset.json says.

    Returns:
        The report.
    """
    report = CaseReport(files.name)
    image = _read(report, files.images, expected.reader, "read_images")
    if image is not None:
        _check_image(report, files, image[0], expected)
    if files.label is None:
        return report
    label = _read(report, (files.label,), expected.reader, "read_seg")
    if label is None:
        return report
    _check_label_values(report, files.label, label[0], expected)
    _measure_thickness(report, label, expected)
    if image is not None:
        _check_agreement(report, files.label, image, label)
    return report


_Volume = tuple[NDArray[np.float32], Mapping[str, Any]]


def _read(report: CaseReport, paths: Sequence[Path], reader: type[Any], method: str) -> _Volume | None:
    try:
        return read_volume(paths, reader, method)
    except DataError as error:
        report.add("error", "unreadable", paths[0], str(error), "Restore the file from its source, or remove the case.")
        return None


def read_volume(paths: Sequence[Path], reader: type[Any], method: str) -> _Volume:
    """What one of nnU-Net's readers makes of files, whichever way they may be damaged.

    Args:
        paths: the images of a case, or one segmentation.
        reader: its class.
        method: `read_images` or `read_seg`.

    Returns:
        The array (C, X, Y, Z) and nnU-Net's properties, `spacing` among them.

    Raises:
        DataError: a file is missing or cannot be read; the message leaves its name to the caller.
    """
    said = io.StringIO()  # nnU-Net's readers print; what they print explains their bare errors
    try:
        for path in paths:
            _require_complete_gzip(path)
        with contextlib.redirect_stdout(said):
            argument = [str(path) for path in paths] if method == "read_images" else str(paths[0])
            volume, properties = getattr(reader(), method)(argument)
        return np.asarray(volume), properties
    except READ_ERRORS as error:
        lines = [line for line in f"{error}\n{said.getvalue()}".splitlines() if line.strip()]
        reason = " ".join(" ".join(lines).split()) or type(error).__name__
        raise DataError(f"expected a file that {reader.__name__} can read, got: {reason[:300]}") from error


def _require_complete_gzip(path: Path) -> None:
    """SimpleITK reads a truncated .nii.gz without a word and fills the rest with zeros."""
    if path.suffix != ".gz":
        return
    with gzip.open(path) as stream:
        while stream.read(1 << 22):
            pass


def _check_image(report: CaseReport, files: CaseFiles, image: NDArray[np.float32], expected: Expected) -> None:
    if expected.channels is not None and len(image) != expected.channels:
        missing = [
            f"{files.name}_{channel:04d}{expected.file_ending}" for channel in range(len(image), expected.channels)
        ]
        mend = f"Add {', '.join(missing)}" if missing else "Declare all channels in dataset.json, or remove some"
        message = f"expected {expected.channels} channels as in dataset.json, got {len(image)}."
        report.add("error", "missing-channel", files.images[0], message, f"{mend}; correct channel_names otherwise.")
    broken = int(np.count_nonzero(~np.isfinite(image)))
    if broken:
        message = f"expected finite grey values, got {broken} that are NaN or infinite."
        report.add("error", "image-values", files.images[0], message, "Replace them by a value that means background.")


def _check_label_values(report: CaseReport, path: Path, label: NDArray[np.float32], expected: Expected) -> None:
    fractional = int(np.count_nonzero(label != np.rint(label)))  # NaN counts too
    if fractional:
        message = f"expected whole numbers, got {fractional} voxels with other values (such as NaN or 0.5)."
        mend = "Write the labels as integers; interpolate labels with nearest neighbour only."
        report.add("error", "label-values", path, message, mend)
        return
    values, counts = _counted(label)
    report.counts = dict(zip(values, counts, strict=True))
    report.on_every_face = frozenset(values).intersection(*_values_by_face(label[0]))
    undeclared = {value: count for value, count in report.counts.items() if value not in expected.labels}
    if undeclared:
        report.add("error", "undeclared-label", path, *_describe_undeclared(undeclared, label.size, expected))
    foreground = sum(count for value, count in report.counts.items() if value not in (0, expected.ignore))
    if set(values) == {expected.ignore}:
        mend = "Remove the case: there is nothing in it to learn from."
        report.add("error", "all-ignored", path, "expected labelled voxels, got the ignore label only.", mend)
    elif foreground == 0:
        mend = "Check that the label belongs to this image. Cases that are meant to be empty: --allow-empty."
        severity: Severity = "warning" if expected.empty_allowed else "error"
        report.add(severity, "no-foreground", path, "expected some foreground, got none.", mend)


def _measure_thickness(report: CaseReport, label: _Volume, expected: Expected) -> None:
    volume = label[0][0]
    spacing = [float(value) for value in label[1]["spacing"]]
    if volume.shape[0] == 1:  # nnU-Net's third axis of a 2-D image
        volume, spacing = volume[0], spacing[1:]
    for value in report.counts.keys() - {0, expected.ignore}:
        thickness = typical_thickness(volume == value, spacing)
        if thickness is not None:
            report.thickness_mm[value] = thickness


def _describe_undeclared(undeclared: Mapping[int, int], size: int, expected: Expected) -> tuple[str, str]:
    listed = ", ".join(f"{value} ({count} voxels)" for value, count in sorted(undeclared.items()))
    known = ", ".join(str(value) for value in sorted(expected.labels))
    mend = "Correct the label file, or declare the value in dataset.json."
    next_value = max(expected.labels) + 1
    if set(undeclared) == {next_value} and expected.ignore is None:
        mend += f' If {next_value} marks voxels that nobody labelled: "ignore": {next_value}.'
    elif set(undeclared) == {255} and 1 not in undeclared and size:
        mend += " A mask stored as 0 and 255 has to be written as 0 and 1."
    return f"expected only the declared values {known}, got {listed}.", mend


def _check_agreement(report: CaseReport, path: Path, image: _Volume, label: _Volume) -> None:
    if image[0].shape[1:] != label[0].shape[1:]:
        message = f"expected the shape {image[0].shape[1:]} of the image, got {label[0].shape[1:]}."
        report.add("error", "shape", path, message, "Export image and label on one grid; check the axis order.")
        return
    wanted, got = (tuple(float(value) for value in volume[1]["spacing"]) for volume in (image, label))
    if not np.allclose(wanted, got):
        message = f"expected the spacing {wanted} of the image, got {got}."
        report.add("error", "spacing", path, message, "Write the same spacing to both.")
    for stuff, names in {"sitk_stuff": ("origin", "direction"), "nibabel_stuff": ("original_affine",)}.items():
        for name in names if stuff in image[1] and stuff in label[1] else ():
            if not np.allclose(image[1][stuff][name], label[1][stuff][name], atol=1e-4):
                message = f"expected the {name} of the image, got another: they may not overlap."
                mend = "Look at both with nnUNetv2_plot_overlay_pngs, then copy the image's header to the label."
                report.add("warning", "geometry", path, message, mend)


def _counted(label: NDArray[np.float32]) -> tuple[list[int], list[int]]:
    low, high = label.min(initial=0), label.max(initial=0)
    if low >= 0 and high < 65536:
        counts = np.zeros(int(high) + 1, dtype=np.int64)
        for plane in label.reshape(label.shape[0] * label.shape[1], -1):  # a whole volume of int64 would be large
            counts += np.bincount(plane.astype(np.intp), minlength=counts.size)
        values = np.flatnonzero(counts)
        return values.tolist(), counts[values].tolist()
    values, counts = np.unique(label, return_counts=True)
    return values.astype(np.int64).tolist(), counts.tolist()


def _values_by_face(label: NDArray[np.float32]) -> Iterator[set[int]]:
    for axis in range(label.ndim):
        for position in (0, -1):  # a 2-D image is its own face along the first axis, which excludes nothing
            yield {int(value) for value in np.unique(np.take(label, position, axis=axis))}
