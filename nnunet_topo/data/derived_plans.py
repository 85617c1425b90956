"""Plans files that carry a recipe: `<PLANS>_<RECIPE>.json`, with the recipe's network overrides applied.

nnU-Net takes everything a training or prediction needs from the plans file that `-p` names, so a derived file makes a
model folder that describes itself. The preprocessed data of the original plans are used as they are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_topo.data.descriptions import read_plans_file
from nnunet_topo.data.raw import find_dataset, read_object, write_json
from nnunet_topo.errors import ConfigError, DataError, nearest
from nnunet_topo.recipe import Network, Recipe

SECTION = "nnunet_topo"
_MINIMUM_EDGE = 4  # voxels of the bottleneck along an axis, as nnU-Net's planner keeps them
_MINIMUM_STAGES = 3  # below, deep supervision has no scale left to act on
_NEEDED = ("data_identifier", "patch_size", "batch_size", "architecture")
_PER_STAGE = ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage")
_PER_DECODER_STAGE = ("n_conv_per_stage_decoder",)


@dataclass(frozen=True)
class DerivedPlans:
    """A plans file to write.

    Attributes:
        plans: content, nnU-Net's own keys and the section `nnunet_topo`.
        configurations: those the overrides were applied to.
        notes: what was changed, one line each.
        warnings: what the user may not have wanted.
    """

    plans: dict[str, Any]
    configurations: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def preprocessed_dataset(root: Path, dataset: int | str) -> Path:
    """Folder of a preprocessed dataset.

    Args:
        root: nnUNet_preprocessed.
        dataset: an id or a full name.

    Raises:
        ConfigError: no such dataset there.
    """
    folder = find_dataset(root, dataset)
    if folder is None:
        names = sorted(path.name for path in root.glob("Dataset*") if path.is_dir())
        raise ConfigError(
            f"dataset: expected a preprocessed dataset, got {str(dataset)!r}. {root}.{nearest(str(dataset), names)} "
            f"Run 'nnUNetv2_plan_and_preprocess -d {dataset}' first. There are: {', '.join(names) or 'none'}."
        )
    return folder


def read_plans(folder: Path, name: str) -> dict[str, Any]:
    """Plans of a preprocessed dataset.

    Raises:
        ConfigError: no plans file of that name.
        DataError: not nnU-Net plans.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        others = ("dataset", "dataset_fingerprint", "splits_final")
        names = sorted(file.stem for file in folder.glob("*.json") if file.stem not in others)
        raise ConfigError(
            f"plans: expected the name of a plans file, got {name!r}. {folder}.{nearest(name, names)} "
            f"Run 'nnUNetv2_plan_and_preprocess' first. There are: {', '.join(names) or 'none'}."
        )
    return read_plans_file(path)


def derive_plans(
    plans: Mapping[str, Any], recipe: Recipe, *, name: str, configurations: Iterable[str] | None = None
) -> DerivedPlans:
    """Plans that carry a recipe, with its network overrides applied.

    Each configuration keeps its data_identifier, spelt out, so nothing is preprocessed again. A configuration that
    inherits from a changed one without being named itself keeps its own values, spelt out too.

    Args:
        plans: nnU-Net's plans.
        recipe: its `network` section says what to override.
        name: plans_name of the result, the stem of its file.
        configurations: those to override, all when None. A patch size acts only on those with as many axes.

    Raises:
        ConfigError: an unknown configuration, a patch size that the strides don't divide, or an override that the
            configuration's architecture has no place for.
    """
    if "__" in name or name.endswith("_"):
        raise ConfigError(f"plans: expected a name without '__', got {name!r}. nnU-Net splits folder names there.")
    original = {key: value for key, value in plans.items() if key != SECTION}
    manager = PlansManager(copy.deepcopy(original))
    available = manager.available_configurations
    chosen = tuple(dict.fromkeys(available if configurations is None else configurations))
    for configuration in chosen:
        if configuration not in available:
            raise ConfigError(
                f"configuration: expected one of {', '.join(available)}, got {configuration!r}. plans "
                f"'{plans.get('plans_name')}'.{nearest(configuration, available)}"
            )
    derived = copy.deepcopy(original)
    derived["plans_name"] = name
    notes: list[str] = []
    warnings: list[str] = []
    for configuration in available:
        entry = derived["configurations"][configuration]
        try:
            resolved = copy.deepcopy(manager.get_configuration(configuration).configuration)
            missing = [key for key in (_NEEDED if configuration in chosen else _NEEDED[:1]) if key not in resolved]
        except KeyError as error:  # without an architecture nnU-Net looks for the keys of its older plans
            missing = ["architecture", str(error.args[0])]
        if missing:
            raise DataError(
                f"plans '{plans.get('plans_name')}': expected {' and '.join(missing)} in {configuration}, got none. "
                "Plan the dataset again."
            )
        entry["data_identifier"] = resolved["data_identifier"]
        changes: dict[str, Any] = {}
        if configuration in chosen:
            changes = overridden(configuration, resolved, recipe.network, notes, warnings)
        elif "inherits_from" in entry and recipe.network != Network():
            changes = {key: resolved[key] for key in ("batch_size", "patch_size", "architecture") if key in resolved}
        entry.update(changes)
    derived[SECTION] = {"recipe": recipe.to_mapping()}
    return DerivedPlans(derived, chosen, tuple(notes), tuple(warnings))


def overridden(
    configuration: str, resolved: Mapping[str, Any], network: Network, notes: list[str], warnings: list[str]
) -> dict[str, Any]:
    """Keys of a configuration that the overrides set, to be written into it.

    Args:
        configuration: its name, for messages.
        resolved: the configuration with inheritance resolved.
        network: the overrides.
        notes: gets a line for each change.
        warnings: gets a line for what the user may not have wanted.
    """
    changes: dict[str, Any] = {}
    patch, dimensions = network.patch_size, len(resolved["patch_size"])
    if patch is not None and len(patch) != dimensions:
        warnings.append(f"{configuration}: patch size {list(patch)} left out, this configuration has {dimensions} axes")
        patch = None
    architecture = copy.deepcopy(resolved["architecture"])
    arguments = architecture["arch_kwargs"]
    if network.batch_size is not None:
        changes["batch_size"] = network.batch_size
        if network.batch_size != resolved["batch_size"]:
            notes.append(f"{configuration}: batch size {resolved['batch_size']} -> {network.batch_size}")
    if patch is None and network.features is None:
        return changes
    if not isinstance(arguments.get("strides"), Sequence) or "features_per_stage" not in arguments:
        raise ConfigError(
            f"network: expected an architecture with stages to override patch size or features, got "
            f"{architecture['network_class_name']} in configuration {configuration}. Override the batch size alone."
        )
    widths = arguments["features_per_stage"]
    widths = [widths] * len(arguments["strides"]) if isinstance(widths, int) else list(widths)
    arguments["features_per_stage"] = widths
    if network.features is not None:
        arguments["features_per_stage"] = _doubling_widths(network.features, widths, configuration)
    if patch is not None:
        _fit_patch(configuration, patch, resolved, arguments, notes, warnings)
        changes["patch_size"] = list(patch)
    if arguments["features_per_stage"] != widths:
        notes.append(f"{configuration}: features {widths} -> {arguments['features_per_stage']}")
    changes["architecture"] = architecture
    return changes


def _doubling_widths(first: int, widths: Sequence[int], configuration: str) -> list[int]:
    limit = max(widths)
    if first > limit:
        raise ConfigError(
            f"network.features: expected at most {limit}, the widest stage of {configuration}, got {first}. "
            "Take fewer features."
        )
    return [min(first * 2**stage, limit) for stage in range(len(widths))]


def _fit_patch(
    configuration: str,
    patch: tuple[int, ...],
    resolved: Mapping[str, Any],
    arguments: dict[str, Any],
    notes: list[str],
    warnings: list[str],
) -> None:
    """Drop stages until the patch's bottleneck is large enough, in place; the strides must then divide the patch."""
    strides = [[stride] * len(patch) if isinstance(stride, int) else list(stride) for stride in arguments["strides"]]
    valid = [valid_patch(patch, strides, upwards=upwards) for upwards in (False, True)]
    if patch not in valid:
        shown = " or ".join(str(list(size)) for size in dict.fromkeys(valid))
        raise ConfigError(
            f"network.patch_size: expected a size that the strides divide, with {_MINIMUM_EDGE} voxels or more left in "
            f"the bottleneck, got {list(patch)}. configuration {configuration}. Nearest valid sizes: {shown}."
        )
    stages = stages_for_patch(patch, strides)
    for key in _PER_STAGE:
        if isinstance(arguments.get(key), (list, tuple)):
            arguments[key] = list(arguments[key])[:stages]
    for key in _PER_DECODER_STAGE:
        if isinstance(arguments.get(key), (list, tuple)):
            arguments[key] = list(arguments[key])[: stages - 1]
    arguments["n_stages"] = stages
    dropped = f", {len(strides) - stages} of {len(strides)} stages dropped" if stages < len(strides) else ""
    if list(patch) != list(resolved["patch_size"]):
        notes.append(f"{configuration}: patch size {list(resolved['patch_size'])} -> {list(patch)}{dropped}")
    median = resolved.get("median_image_size_in_voxels")
    if median and any(size > edge for size, edge in zip(patch, median, strict=True)):
        edges = [round(edge) for edge in median]
        warnings.append(f"{configuration}: patch size {list(patch)} is larger than the median image {edges}")


def stages_for_patch(patch: Sequence[int], strides: Sequence[Sequence[int]]) -> int:
    """Number of stages to keep so that the bottleneck has 4 voxels along each pooled axis; never fewer than 3.

    Args:
        patch: voxels per axis.
        strides: per stage, then axis; the first stage's are 1.
    """
    for stages in range(len(strides), min(_MINIMUM_STAGES, len(strides)), -1):
        totals = [math.prod(stride[axis] for stride in strides[:stages]) for axis in range(len(patch))]
        if all(total == 1 or size // total >= _MINIMUM_EDGE for size, total in zip(patch, totals, strict=True)):
            return stages
    return min(_MINIMUM_STAGES, len(strides))


def valid_patch(patch: Sequence[int], strides: Sequence[Sequence[int]], *, upwards: bool) -> tuple[int, ...]:
    """The patch itself when the strides of the stages that it keeps divide it, else a valid one near it.

    Args:
        patch: voxels per axis.
        strides: per stage, then axis; the first stage's are 1.
        upwards: round up instead of down. An axis too small for 3 stages is enlarged either way.
    """
    current = tuple(patch)
    while True:
        stages = stages_for_patch(current, strides)
        rounded = []
        for axis, size in enumerate(current):
            total = math.prod(stride[axis] for stride in strides[:stages])
            multiple = -(-size // total) if upwards else size // total
            rounded.append(total * max(multiple, _MINIMUM_EDGE if total > 1 else 1))
        # a rounded size may keep another number of stages than the one it was rounded for
        if tuple(rounded) == current:
            return current
        current = tuple(rounded)


def trained_folders(results: Path, dataset: str, name: str) -> list[Path]:
    """Model folders of a dataset that were trained under plans of that name and hold a checkpoint."""
    return sorted(
        folder for folder in (results / dataset).glob(f"*__{name}__*") if any(folder.glob("fold_*/checkpoint_*.pth"))
    )


def write_derived_plans(derived: DerivedPlans, folder: Path, results: Path | None) -> Path:
    """Write the plans file into a preprocessed dataset's folder.

    Args:
        derived: from `derive_plans`.
        folder: of the preprocessed dataset.
        results: nnUNet_results; None when it is not set.

    Raises:
        ConfigError: a file of that name exists with other content and either was not made by this command or is what a
            model was trained with.
    """
    name = derived.plans["plans_name"]
    path = folder / f"{name}.json"
    if path.is_file():
        existing = read_object(path)
        if existing == derived.plans:
            return path
        mend = "Choose another name with '--set name=NEW_NAME'."
        if SECTION not in existing:
            raise ConfigError(f"plans: expected to replace a derived plans file, got one of nnU-Net. {path}. {mend}")
        trained = trained_folders(results, folder.name, name) if results else []
        if trained:
            raise ConfigError(
                f"plans: expected the settings that a model was trained with, got others for the same name. {path}, "
                f"{trained[0]}. {mend}"
            )
    write_json(path, derived.plans)
    return path
