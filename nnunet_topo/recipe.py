"""Recipes: every setting of a training run in one YAML file, validated into frozen dataclasses.

This is the only place where a user's settings are checked. Defaults are nnU-Net's own values where it has one. Build a
recipe with `load_recipe` or `recipe_from_mapping`; the dataclasses alone do not validate.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import yaml

from nnunet_topo._recipe_remarks import remarks
from nnunet_topo._recipe_sections import (
    Averaging,
    EarlyStopping,
    Inference,
    LearningRateSchedule,
    Monitor,
    Network,
    Noise,
    Optimizer,
    Phase,
    Plateau,
    Rollback,
    Sampling,
    epoch_of,
    name_patterns,
)
from nnunet_topo._validation import (
    FrozenMapping,
    Where,
    build,
    freeze,
    integer,
    number,
    optional,
    parse_yaml,
    section,
    setting,
    several,
    text,
    to_builtins,
    unknown_key,
)
from nnunet_topo.errors import ConfigError, nearest
from nnunet_topo.losses import NNUNET_TERM, TERMS, check_parameters

__all__ = [
    "Averaging",
    "EarlyStopping",
    "Inference",
    "LearningRateSchedule",
    "Monitor",
    "Network",
    "Noise",
    "Optimizer",
    "Phase",
    "Plateau",
    "Recipe",
    "Rollback",
    "Sampling",
    "builtin_recipes",
    "epoch_of",
    "load_recipe",
    "plans_directory",
    "recipe_differences",
    "recipe_from_mapping",
    "recipe_to_yaml",
    "remarks",
]

_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
_FILE_SUFFIXES = (".yaml", ".yml", ".json")


def _name(value: object, where: Where) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        where.fail(
            "lower-case letters and digits in words joined by single underscores",
            value,
            "Write for example 'my_recipe_2'.",
        )
    return value


def _losses(value: object, where: Where) -> FrozenMapping:
    value = {} if value is None else value
    if not isinstance(value, Mapping):
        where.fail(
            "a mapping of loss terms to their parameters", value, "Write for example 'losses: {focal: {gamma: 2.0}}'."
        )
    for term, parameters in value.items():
        if parameters is not None and not isinstance(parameters, Mapping):
            where.child(term).fail("a mapping of parameters to values", parameters)
    return freeze({term: parameters or {} for term, parameters in value.items()}, where)


@dataclass(frozen=True)
class Recipe:
    """All settings of a training run. Immutable, its mappings included; it pickles."""

    name: str = setting(MISSING, _name)
    epochs: int = setting(1000, integer(1))
    iterations_per_epoch: int = setting(250, integer(1))
    validation_iterations: int = setting(50, integer(1))
    checkpoint_every: int = setting(50, integer(1))
    seed: int | None = setting(None, optional(integer(0, 2**32 - 1)))
    optimizer: Optimizer = setting(Optimizer(), section(Optimizer))
    lr_schedule: LearningRateSchedule = setting(LearningRateSchedule(), section(LearningRateSchedule))
    gradient_clip: float | None = setting(12.0, optional(number(above=0)))
    max_nonfinite_steps: int = setting(10, integer(1))
    losses: Mapping[str, Mapping[str, Any]] = setting(FrozenMapping(), _losses)
    phases: tuple[Phase, ...] = setting(MISSING, several(section(Phase)), kw_only=True)
    monitor: Monitor = setting(Monitor(), section(Monitor))
    conflict_every: int | None = setting(None, optional(integer(1)))
    plateau: Plateau | None = setting(None, optional(section(Plateau)))
    rollback: Rollback | None = setting(None, optional(section(Rollback)))
    noise: Noise | None = setting(None, optional(section(Noise)))
    averaging: Averaging = setting(Averaging(), section(Averaging))
    early_stopping: EarlyStopping | None = setting(None, optional(section(EarlyStopping)))
    network: Network = setting(Network(), section(Network))
    sampling: Sampling = setting(Sampling(), section(Sampling))
    start_from: str | None = setting(None, optional(text))
    trainable: str | tuple[str, ...] = setting("all", name_patterns)
    inference: Inference = setting(Inference(), section(Inference))

    def __post_init__(self) -> None:
        """Freeze the mappings and lists that were handed in."""
        object.__setattr__(self, "losses", freeze(self.losses, Where("losses", self.name)))
        object.__setattr__(self, "phases", tuple(self.phases))

    def to_mapping(self) -> dict[str, Any]:
        """Builtins with YAML keys and all defaults filled in; `recipe_from_mapping` gives an equal recipe back."""
        mapping: dict[str, Any] = to_builtins(self)
        return mapping

    def phase_starts(self) -> tuple[int, ...]:
        """First epoch of each phase."""
        return tuple(epoch_of(phase.start, self.epochs) for phase in self.phases)

    def terms(self) -> tuple[str, ...]:
        """All loss terms that any phase names, weight 0 included, in order of appearance."""
        return tuple(dict.fromkeys(term for phase in self.phases for term in phase.weights))

    def active_terms(self) -> tuple[str, ...]:
        """Loss terms with a weight > 0 in any phase, in order of appearance."""
        return tuple(term for term in self.terms() if any(phase.weights.get(term, 0.0) > 0 for phase in self.phases))

    def with_overrides(self, overrides: Iterable[str]) -> Recipe:
        """Recipe with some settings replaced, validated anew.

        Args:
            overrides: `KEY=VALUE` each: a dotted key (list items by index: `phases.1.weights.focal=0.3`) and a YAML
                value. Choosing another optimiser, schedule or kind of averaging drops the settings that only the old
                one had.

        Raises:
            ConfigError: an unknown key, a bad value, or settings that don't fit together.
        """
        overrides = list(overrides)
        mapping = self.to_mapping()
        chosen = {item.partition("=")[0].strip() for item in overrides}
        for item in overrides:
            key, equals, value = item.partition("=")
            source = f"recipe '{self.name}', override '{item}'"
            if not equals or not key.strip():
                raise ConfigError(f"override: expected KEY=VALUE, got {item!r}. Write for example 'optimizer.lr=1e-3'.")
            _override(mapping, key.strip(), parse_yaml(value, source), source, chosen)
        return recipe_from_mapping(mapping, f"recipe '{self.name}' with {', '.join(overrides) or 'no overrides'}")


def _override(mapping: dict[str, Any], key: str, value: object, source: str, chosen: set[str]) -> None:
    """Set a dotted key in place; `chosen` holds the keys of all overrides, which are never dropped."""
    parts = key.split(".")
    parents: list[Any] = [mapping]
    for depth, part in enumerate(parts):
        parent, where = parents[-1], Where(".".join(parts[: depth + 1]), source)
        if isinstance(parent, list):
            if not part.isdecimal() or int(part) >= len(parent):
                where.fail(f"an index from 0 to {len(parent) - 1}", part)
            index: Any = int(part)
        elif isinstance(parent, dict):
            index = part
        else:
            Where(".".join(parts[:depth]), source).fail("a mapping or a list to go into", parent)
        if depth == len(parts) - 1:
            parent[index] = value
        else:
            if isinstance(parent, dict) and parent.get(index) is None:
                if depth == 0 and part not in mapping:
                    unknown_key(where, part, mapping)
                parent[index] = {}
            parents.append(parent[index])
    if len(parts) == 2 and parts[0] in _SECTIONS:
        for field in dataclasses.fields(_SECTIONS[parts[0]]):
            only_for = field.metadata["only_for"]
            stale = only_for and only_for[0] == parts[1] and value not in only_for[1:]
            if stale and f"{parts[0]}.{field.name}" not in chosen:
                mapping[parts[0]].pop(field.name, None)


_SECTIONS: dict[str, type] = {"optimizer": Optimizer, "lr_schedule": LearningRateSchedule, "averaging": Averaging}


def recipe_from_mapping(mapping: object, source: str) -> Recipe:
    """Recipe from a mapping with YAML keys.

    Args:
        mapping: what a recipe file holds; null sections mean their defaults.
        source: file or other origin, named in every message.

    Raises:
        ConfigError: an unknown, missing or bad key, or settings that don't fit together; naming source and key.
    """
    if not isinstance(mapping, Mapping):
        Where("", source).fail("a mapping of keys to values", mapping, "Start with the keys 'name' and 'phases'.")
    recipe = build(Recipe, mapping, Where("", source))
    _check_terms(recipe, source)
    _check_phases(recipe, source)
    if recipe.lr_schedule.warmup_epochs >= recipe.epochs:
        where = Where("lr_schedule.warmup_epochs", source)
        where.fail(f"fewer than epochs ({recipe.epochs})", recipe.lr_schedule.warmup_epochs, "Shorten the warm-up.")
    return recipe


def _check_terms(recipe: Recipe, source: str) -> None:
    known = {*TERMS, NNUNET_TERM}
    for term, parameters in recipe.losses.items():
        check_parameters(term, to_builtins(parameters), source)
    weighted = {f"phases.{index}.weights": phase.weights for index, phase in enumerate(recipe.phases)}
    reference = recipe.monitor.reference_weights
    if reference is not None:
        weighted["monitor.reference_weights"] = reference
    for key, weights in weighted.items():
        for term in weights:
            if term not in known and term not in recipe.losses:
                where = f"{key}.{term}"
                raise ConfigError(
                    f"{where}: unknown loss term. {source}.{nearest(term, known)} "
                    f"Valid terms: {', '.join(sorted(known))}; a term of your own needs "
                    f"'losses: {{{term}: {{class: package.module:Name}}}}'."
                )

    if reference is not None and not any(weight > 0 for weight in reference.values()):
        mend = "Give a term a weight, or null for those of the last phase."
        Where("monitor.reference_weights", source).fail("at least one weight > 0", dict(reference), mend)


def _check_phases(recipe: Recipe, source: str) -> None:
    if not recipe.phases:
        Where("phases", source).fail(
            "at least one phase", [], "Write for example 'phases: [{from: 0, weights: {dice: 1}}]'."
        )
    starts = recipe.phase_starts()
    for index, (phase, epoch) in enumerate(zip(recipe.phases, starts, strict=True)):
        where = Where(f"phases.{index}.from", source)
        shown = f"{phase.start} (epoch {epoch})" if isinstance(phase.start, float) else phase.start
        if index == 0 and epoch != 0:
            where.fail("0 for the first phase", shown, "Start the first phase at 0.")
        if index and epoch <= starts[index - 1]:
            mend = f"Order the phases by start, with at least one of the {recipe.epochs} epochs in each."
            where.fail(f"a start after that of the phase before (epoch {starts[index - 1]})", shown, mend)
        if epoch >= recipe.epochs:
            mend = "Start it earlier, remove the phase, or raise 'epochs'."
            where.fail(f"a start before the end of the run (epochs: {recipe.epochs})", shown, mend)
        if not any(weight > 0 for weight in phase.weights.values()):
            weights = Where(f"phases.{index}.weights", source)
            weights.fail(
                "at least one weight > 0", dict(phase.weights), "Give a loss term a weight, for example 'dice: 1.0'."
            )
    for index, (begin, end) in enumerate(itertools.pairwise((*starts, recipe.epochs))):
        ramp, where = recipe.phases[index].ramp_epochs, Where(f"phases.{index}.ramp_epochs", source)
        if index == 0 and ramp:
            where.fail("0 for the first phase", ramp, "There is nothing before it to ramp from: remove the key.")
        if ramp > end - begin:
            where.fail(f"at most the {end - begin} epochs of its phase", ramp, "Shorten the ramp.")


def recipe_differences(a: Recipe, b: Recipe) -> list[str]:
    """Settings in which two recipes differ, as lines like `optimizer.lr: 0.01 -> 0.001`; empty when equal."""
    return list(_differences(a.to_mapping(), b.to_mapping(), ""))


def _differences(a: object, b: object, key: str) -> Iterable[str]:
    if isinstance(a, list) and isinstance(b, list) and any(isinstance(item, dict) for item in (*a, *b)):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    if isinstance(a, dict) and isinstance(b, dict):
        for name in dict.fromkeys((*a, *b)):
            yield from _differences(a.get(name, _ABSENT), b.get(name, _ABSENT), f"{key}.{name}" if key else str(name))
    elif a != b:
        yield f"{key}: {_shown(a)} -> {_shown(b)}"


_ABSENT = object()


def _shown(value: object) -> str:
    return "absent" if value is _ABSENT else "null" if value is None else str(value)


def recipe_to_yaml(recipe: Recipe) -> str:
    """YAML text of the resolved recipe, all defaults filled in; `load_recipe` reads it back to an equal recipe."""
    content: str = yaml.safe_dump(recipe.to_mapping(), sort_keys=False, default_flow_style=None, width=120)
    return content


def plans_directory() -> Path:
    """Folder of the recipes that come with the package: inside it when installed from a wheel, else beside it."""
    package = Path(__file__).resolve().parent
    for folder in (package / "plans", package.parent / "plans"):
        if (folder / "nnunet.yaml").is_file():
            return folder
    raise ConfigError(f"plans: expected the folder of recipes, got none. {package}. Install nnunet-topo again.")


def builtin_recipes() -> dict[str, Path]:
    """Files of the recipes that come with the package, by name."""
    return {path.stem: path for path in sorted(plans_directory().glob("*.yaml"))}


def load_recipe(name_or_path: str | os.PathLike[str]) -> Recipe:
    """Recipe that comes with the package, by name, or one's own, by path.

    Args:
        name_or_path: a name without suffix or separator, or the path of a YAML file.

    Raises:
        ConfigError: no such recipe or file, bad YAML, or bad settings.
    """
    wanted = os.fspath(name_or_path)
    is_path = not isinstance(name_or_path, str) or wanted.endswith(_FILE_SUFFIXES) or Path(wanted).name != wanted
    path = Path(wanted)
    if not is_path:
        available = builtin_recipes()
        if wanted not in available:
            names = ", ".join(available)
            raise ConfigError(
                f"recipe: expected a name or the path of a YAML file, got {wanted!r}."
                f"{nearest(wanted, available)} Recipes: {names}."
            )
        path = available[wanted]
    try:
        content = path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, RuntimeError) as error:  # RuntimeError: the home of an unknown user
        reason = getattr(error, "strerror", None) or str(error)
        mend = "Save it as UTF-8 text." if isinstance(error, UnicodeDecodeError) else "Check the path."
        raise ConfigError(f"recipe: expected a readable YAML file, got {reason}. {path}. {mend}") from error
    mapping = parse_yaml(content, str(path))
    if mapping is None:
        raise ConfigError(f"recipe: expected the keys 'name' and 'phases', got an empty file. {path}. Write them.")
    return recipe_from_mapping(mapping, str(path))
