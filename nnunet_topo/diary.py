"""Import of the training diary's own YAML files as recipes.

The file is taken at its word: what it says becomes the recipe, also where the diary's code ignored it. Those places,
and every key that has no counterpart, are named in warnings.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_topo._validation import Where, as_number, boolean, integer, parse_yaml, unknown_key
from nnunet_topo.errors import ConfigError, nearest
from nnunet_topo.losses import TERMS
from nnunet_topo.recipe import Recipe, recipe_from_mapping, remarks

# keys with one value and one place: diary key -> dotted key of a recipe
_DIRECT = {
    "num_epochs": "epochs",
    "epochs": "epochs",
    "learning_rate": "optimizer.lr",
    "lr": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "warmup_epochs": "lr_schedule.warmup_epochs",
    "grad_clip_norm": "gradient_clip",
    "early_stopping_patience": "early_stopping.patience",
    "catastrophic_degradation_threshold": "rollback.catastrophic",
    "batch_size": "network.batch_size",
    "patch_size": "network.patch_size",
    "initial_filters": "network.features",
    "focal_alpha": "losses.focal.alpha",
    "focal_gamma": "losses.focal.gamma",
    "seed": "seed",
}
_SCHEDULERS = {
    "plateau": "plateau",
    "reducelronplateau": "plateau",
    "cosinewarmrestarts": "cosine_restarts",
    "cosineannealingwarmrestarts": "cosine_restarts",
    "cosinerestarts": "cosine_restarts",
    "poly": "poly",
    "constant": "constant",
    "none": "constant",
}
# groups of keys that act together: diary key -> key of the recipe's section; the switch comes first
_SCHEDULER_KEYS = {
    "plateau": {"scheduler_patience": "patience", "scheduler_factor": "factor", "scheduler_threshold": "threshold"},
    "cosine_restarts": {"T_0": "first_cycle_epochs", "T_mult": "cycle_factor", "eta_min": "minimum_lr"},
}
_SWA_KEYS = {"swa_start_epoch": "start", "swa_lr": "lr", "swa_update_freq": "every"}
_NOISE_KEYS = {
    "noise_start_epoch": "start",
    "noise_frequency": "every",
    "noise_std": "std",
    "noise_decay": "decay",
    "noise_target_layers": "parameters",
}
_ESCAPE_KEYS = {"adaptive_intervention_patience": "patience", "adaptive_intervention_lr_multiplier": "max_lr_scale"}
_NOISE_LAYERS = {"decoders": "decoder.stages.*", "output": "decoder.seg_layers.*", "upconvs": "decoder.transpconvs.*"}
_CLASS_WEIGHTS = ("use_class_weights", "background_weight", "foreground_weight")
# what the diary's code used where its file said nothing
_CODE_DEFAULTS: dict[str, Any] = {
    "num_epochs": 50,
    "learning_rate": 1e-3,
    "weight_decay": 1e-5,
    "scheduler_type": "plateau",
    "swa_start_epoch": 30,
    "swa_lr": 5e-5,
    "noise_start_epoch": 30,
}
_IGNORED_BY_CODE = {
    "optimizer": "AdamW was hard-coded",
    "focal_alpha": "0.25 on the foreground was used",
    "focal_gamma": "2.0 was used",
    "use_class_weights": "no class weights were used",
    "background_weight": "no class weights were used",
    "foreground_weight": "no class weights were used",
    "grad_clip_norm": "2.0 was used",
    "swa_update_freq": "every epoch was averaged",
    "scheduler_threshold": "a relative 1e-4 was used",
    "adaptive_interventions_enabled": "interventions were always on, with fixed settings",
    "adaptive_intervention_patience": "3 epochs were used",
    "adaptive_intervention_lr_multiplier": "factors of 2 to 35 were used",
}
_NOT_CARRIED = {
    "in_channels": "nnU-Net reads the channels from dataset.json",
    "out_channels": "nnU-Net reads the classes from dataset.json",
    "depth": "nnU-Net plans the number of stages; 'nnunet-topo plan' adapts it to the patch size",
    "num_workers": "set the environment variable nnUNet_n_proc_DA",
    "n_folds": "nnU-Net makes five folds; edit splits_final.json for others",
    "model_type": "nnU-Net plans the network",
}
# the diary's own form of these terms, where this package's default is another
_DIARY_FORMULAS = (("variance", "form", "legacy"), ("connectivity", "form", "legacy"), ("cldice", "iterations", 3))
_FLAT_WEIGHTS = tuple(f"{term}_weight" for term in TERMS)
_PHASE_KEYS = ("phase", "epoch_start", "epoch_end", "loss_weights", "target")


class _Diary:
    """The diary's mapping, with what was read of it and the warnings so far."""

    def __init__(self, mapping: Mapping[str, Any], source: str) -> None:
        self.mapping, self.source = mapping, source
        self.read: set[str] = set()
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(f"{self.source}: {message}")

    def has(self, key: str) -> bool:
        return key in self.mapping

    def take(self, key: str) -> Any:
        self.read.add(key)
        return as_number(self.mapping[key])

    def first(self, *keys: str) -> Any:
        """Value of the one spelling that is there, or None; two spellings are an error."""
        present = [key for key in keys if self.has(key)]
        if len(present) > 1:
            raise ConfigError(
                f"{present[1]}: expected one of {' and '.join(present)}, got both. {self.source}. Remove one."
            )
        return self.take(present[0]) if present else None

    def group(self, keys: Mapping[str, str], enabled: bool, reason: str) -> dict[str, Any]:
        """Values of keys that act together, under their recipe names; a warning for those that rest."""
        present = [key for key in keys if self.has(key)]
        values = {keys[key]: self.take(key) for key in present}
        if enabled:
            return values
        if present:
            self.warn(f"{', '.join(present)}: left out, {reason}")
        return {}

    def default(self, key: str) -> Any:
        value = _CODE_DEFAULTS[key]
        self.warn(f"{key}: not in the file, the diary's default {value} is taken")
        return value


def recipe_from_diary(path: str | os.PathLike[str]) -> tuple[Recipe, list[str]]:
    """Recipe that says what a YAML file of the diary says, and warnings.

    Args:
        path: file with flat `loss_weights` or with `progressive_phases` (epoch_start and epoch_end both inclusive);
            weights spelt `dice_weight` or `dice`.

    Returns:
        The recipe, named after the file; one warning for each key that is unknown, has no counterpart, rests, or was
        ignored by the diary's code.

    Raises:
        ConfigError: an unreadable file, no loss weights, an unknown loss term, gaps or overlaps between phases, or a
            value that a recipe refuses.
    """
    path = Path(path)
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        mend = "Save it as UTF-8 text." if isinstance(error, UnicodeDecodeError) else "Check the path."
        raise ConfigError(f"diary: expected a readable YAML file, got {reason}. {path}. {mend}") from error
    mapping = parse_yaml(content, str(path))
    if not isinstance(mapping, Mapping):
        Where("diary", str(path)).fail("a mapping of keys to values", mapping)
    diary = _Diary({str(key): value for key, value in mapping.items()}, str(path))
    settings: dict[str, Any] = {"name": _name_of(path)}
    for target in dict.fromkeys(_DIRECT.values()):
        spellings = [key for key, place in _DIRECT.items() if place == target]
        if any(diary.has(key) for key in spellings):
            _place(settings, target, diary.first(*spellings))
    phases = _phases(diary, settings)
    _optimizer(diary, settings)
    _schedule(diary, settings)
    _mechanisms(diary, settings)
    settings["phases"] = phases
    _losses(diary, settings)
    _report_leftovers(diary)
    recipe = recipe_from_mapping(settings, str(path))
    return recipe, diary.warnings + [f"{path}: {remark}" for remark in remarks(recipe)]


def _name_of(path: Path) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", path.stem.lower()).strip("_")
    return name.removeprefix("config_") or "diary"


def _place(settings: dict[str, Any], dotted: str, value: object) -> None:
    *parents, leaf = dotted.split(".")
    for parent in parents:
        settings = settings.setdefault(parent, {})
    settings[leaf] = value


def _weights(mapping: object, where: Where) -> dict[str, Any]:
    """Weights by term, from either spelling."""
    if not isinstance(mapping, Mapping):
        where.fail("a mapping of loss terms to weights", mapping)
    known, weights = set(TERMS), {}
    for key, weight in mapping.items():
        term = str(key).removesuffix("_weight")
        if term not in known:
            unknown_key(where.child(key), term, sorted(known))
        if term in weights:
            where.child(key).fail(f"one of {term} and {term}_weight", "both", "Remove one.")
        weights[term] = as_number(weight)
    return {term: weight for term, weight in weights.items() if weight != 0}


def _phases(diary: _Diary, settings: dict[str, Any]) -> list[dict[str, Any]]:
    progressive = diary.has("progressive_phases")
    if diary.has("progressive_loss_schedule"):
        switch = boolean(diary.take("progressive_loss_schedule"), Where("progressive_loss_schedule", diary.source))
        if progressive and not switch:
            diary.take("progressive_phases")
            diary.warn("progressive_phases: left out, progressive_loss_schedule is false")
        if switch and not progressive:
            Where("progressive_phases", diary.source).fail(
                "a list of phases", None, "Add them, or switch the schedule off."
            )
        progressive = switch
    elif progressive:
        diary.warn("progressive_loss_schedule: not in the file, so the diary's code ignored progressive_phases")
    flat = [key for key in _FLAT_WEIGHTS if diary.has(key)]
    if progressive:
        for key in ("loss_weights", *flat):
            if diary.has(key):
                diary.take(key)
                diary.warn(f"{key}: left out, the phases hold the weights")
        return _progressive_phases(diary, settings)
    if "epochs" not in settings:
        settings["epochs"] = diary.default("num_epochs")
    if flat and diary.has("loss_weights"):
        raise ConfigError(
            f"{flat[0]}: expected weights in one place, got also loss_weights. {diary.source}. Remove one."
        )
    where = Where("loss_weights", diary.source)
    if not flat and not diary.has("loss_weights"):
        where.fail("loss weights or progressive_phases", None, "Add them.")
    weights = _weights({key: diary.take(key) for key in flat} if flat else diary.take("loss_weights"), where)
    if weights.get("variance", 0) != 0.25:
        diary.warn(f"variance_weight: {weights.get('variance', 0)} was ignored by the diary's code (0.25 was used)")
    return [{"from": 0, "weights": weights}]


def _progressive_phases(diary: _Diary, settings: dict[str, Any]) -> list[dict[str, Any]]:
    where = Where("progressive_phases", diary.source)
    listed = diary.take("progressive_phases")
    if not isinstance(listed, list) or not listed:
        where.fail("a list of phases", listed)
    spans = []
    for index, phase in enumerate(listed):
        inner = where.child(index)
        if not isinstance(phase, Mapping):
            inner.fail("a mapping with epoch_start, epoch_end and loss_weights", phase)
        for key in phase:
            if key not in _PHASE_KEYS:
                diary.warn(f"{inner.key}.{key}: unknown key, left out.{nearest(str(key), _PHASE_KEYS)}")
        begin = integer(0)(phase.get("epoch_start"), inner.child("epoch_start", "0"))
        end = integer(0)(phase.get("epoch_end"), inner.child("epoch_end", "30"))
        if end < begin:
            inner.child("epoch_end").fail(f"an epoch from epoch_start ({begin}) on", end)
        weights = _weights(phase.get("loss_weights"), inner.child("loss_weights"))
        if not {"dice", "dice_weight"} & set(phase["loss_weights"]):
            diary.warn(f"{inner.key}.loss_weights: no dice weight means 0 here, the diary's code used 1.0")
        if "dice" in phase["loss_weights"]:
            diary.warn(f"{inner.key}.loss_weights: the diary's code read 'dice_weight' and would not have found 'dice'")
        spans.append((begin, end, weights))
    spans.sort(key=lambda span: span[0])
    if spans[0][0] != 0:
        where.fail("phases from epoch 0 on", f"a gap: epochs 0 to {spans[0][0] - 1} are in no phase", "Close it.")
    for (_, end, _), (begin, _, _) in itertools.pairwise(spans):
        if begin > end + 1:
            where.fail("phases without gaps", f"epochs {end + 1} to {begin - 1} in no phase", "Close the gap.")
        if begin <= end:
            where.fail(
                "phases without overlaps",
                f"epochs {begin} to {end} in two phases",
                "Let one begin after the other ends.",
            )
    last = spans[-1][1]
    if "epochs" not in settings:
        settings["epochs"] = last
        diary.warn(f"num_epochs: not in the file, the last epoch_end ({last}) is taken")
    elif isinstance(settings["epochs"], int) and last < settings["epochs"] - 1:
        diary.warn(
            f"progressive_phases: epochs {last + 1} to {settings['epochs'] - 1} keep the weights of the last phase"
        )
    return [{"from": begin, "weights": weights} for begin, _, weights in spans]


def _optimizer(diary: _Diary, settings: dict[str, Any]) -> None:
    optimizer = settings.setdefault("optimizer", {})
    name = str(diary.first("optimizer") or "AdamW")
    words = re.findall(r"[a-z]+", name.lower())
    kinds = {"adamw": "adamw", "adam": "adamw", "sgd": "sgd"}
    if not words or words[0] not in kinds:
        Where("optimizer", diary.source).fail("SGD, Adam or AdamW", name)
    optimizer["name"] = kinds[words[0]]
    if words[0] == "adam":
        diary.warn("optimizer: Adam is imported as adamw, as in the diary's code")
    optimizer.update(diary.group({"momentum": "momentum"}, optimizer["name"] == "sgd", "adamw has no momentum"))
    for key, target in (("learning_rate", "lr"), ("weight_decay", "weight_decay")):
        if target not in optimizer:
            optimizer[target] = diary.default(key)


def _schedule(diary: _Diary, settings: dict[str, Any]) -> None:
    schedule = settings.setdefault("lr_schedule", {})
    given = diary.first("scheduler_type", "scheduler", "lr_scheduler")
    given = diary.default("scheduler_type") if given is None else given
    name = _SCHEDULERS.get(re.sub(r"[^a-z]", "", str(given).lower()))
    if name is None:
        Where("scheduler_type", diary.source).fail("plateau, cosine_warm_restarts, poly or constant", given)
    schedule["name"] = name
    for kind, keys in _SCHEDULER_KEYS.items():
        schedule.update(diary.group(keys, kind == name, f"the schedule is {name}"))


def _mechanisms(diary: _Diary, settings: dict[str, Any]) -> None:
    def switched(key: str) -> bool:
        return diary.has(key) and boolean(diary.take(key), Where(key, diary.source))

    enabled = switched("swa_enabled")
    average = diary.group(_SWA_KEYS, enabled, "swa_enabled is not true")
    if enabled:
        missing = {_SWA_KEYS[key]: diary.default(key) for key in ("swa_start_epoch", "swa_lr") if not diary.has(key)}
        settings["averaging"] = {"kind": "swa", **average, **missing}
    enabled = switched("noise_enabled")
    noise = diary.group(_NOISE_KEYS, enabled, "noise_enabled is not true")
    if enabled:
        if "start" not in noise:
            noise["start"] = diary.default("noise_start_epoch")
        diary.warn(
            "noise_enabled: noise_std is relative to each tensor's norm here, it was absolute in the diary's code"
        )
        if isinstance(noise.get("parameters"), list):
            noise["parameters"] = [_NOISE_LAYERS.get(str(layer), f"*{layer}*") for layer in noise["parameters"]]
        settings["noise"] = noise
    enabled = switched("adaptive_interventions_enabled")
    escape = diary.group(_ESCAPE_KEYS, enabled, "adaptive_interventions_enabled is not true")
    if enabled:
        settings["plateau"] = escape
    if isinstance(diary.mapping.get("postprocess"), Mapping):
        for key in diary.take("postprocess"):
            if key == "threshold":
                _place(settings, "inference.threshold", as_number(diary.mapping["postprocess"][key]))
                diary.warn("postprocess.threshold: ignored by the diary's code (0.5 was used, after a second sigmoid)")
            else:
                diary.warn(f"postprocess.{key}: left out, post-processing is no part of a recipe")


def _losses(diary: _Diary, settings: dict[str, Any]) -> None:
    present = [key for key in _CLASS_WEIGHTS if diary.has(key)]
    values = {key: diary.take(key) for key in present}
    if values.get("use_class_weights") is True:
        weights = [values.get("background_weight", 1.0), values.get("foreground_weight", 1.0)]
        _place(settings, "losses.focal.class_weights", weights)
    elif set(present) - {"use_class_weights"}:
        diary.warn("background_weight, foreground_weight: left out, use_class_weights is not true")
    for term, parameter, value in _DIARY_FORMULAS:
        if any(term in phase["weights"] for phase in settings["phases"]):
            _place(settings, f"losses.{term}.{parameter}", value)


def _report_leftovers(diary: _Diary) -> None:
    known = [*_DIRECT, *_SWA_KEYS, *_NOISE_KEYS, "loss_weights", "progressive_phases", "optimizer", "scheduler_type"]
    for key, value in diary.mapping.items():
        if key in _NOT_CARRIED:
            diary.warn(f"{key}: left out, {_NOT_CARRIED[key]}")
        elif key not in diary.read:
            diary.warn(f"{key}: unknown key with value {value!r}, left out.{nearest(key, known)}")
        elif key in _IGNORED_BY_CODE:
            diary.warn(f"{key}: ignored by the diary's code ({_IGNORED_BY_CODE[key]})")
