import itertools
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nnunet_topo.diary import recipe_from_diary
from nnunet_topo.errors import ConfigError
from nnunet_topo.recipe import load_recipe, recipe_to_yaml

FLAT = {
    "num_epochs": 300,
    "learning_rate": 1e-4,
    "weight_decay": 0.01,
    "warmup_epochs": 5,
    "scheduler_type": "cosine_warm_restarts",
    "T_0": 10,
    "T_mult": 2,
    "eta_min": 1e-6,
    "loss_weights": {"dice_weight": 0.4, "focal_weight": 0.25, "variance_weight": 0.2, "connectivity_weight": 0.0},
}
SPANS = [(0, 30, {"dice": 1.0}), (31, 60, {"dice": 0.8, "focal": 0.2}), (61, 300, {"dice": 0.75, "boundary": 0.25})]


def progressive(spans=SPANS, suffix="_weight", **changes):
    listed = [
        {
            "phase": index + 1,
            "epoch_start": begin,
            "epoch_end": end,
            "loss_weights": {f"{term}{suffix}": weight for term, weight in weights.items()},
            "target": "words",
        }
        for index, (begin, end, weights) in enumerate(spans)
    ]
    settings = {key: value for key, value in FLAT.items() if key not in ("num_epochs", "loss_weights")}
    return {**settings, "progressive_loss_schedule": True, "progressive_phases": listed, **changes}


@pytest.fixture
def imported(tmp_path):
    def run(content, name="config_v2.yaml"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
        return recipe_from_diary(path)

    return run


def error_of(imported, content):
    with pytest.raises(ConfigError) as caught:
        imported(content)
    return str(caught.value)


def test_flat_file(imported, tmp_path):
    recipe, warnings = imported(FLAT)
    assert recipe.name == "v2"
    assert recipe.epochs == 300
    assert [(phase.start, dict(phase.weights)) for phase in recipe.phases] == [
        (0, {"dice": 0.4, "focal": 0.25, "variance": 0.2})
    ]
    assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.optimizer.weight_decay) == ("adamw", 1e-4, 0.01)
    schedule = recipe.lr_schedule
    assert (schedule.name, schedule.first_cycle_epochs, schedule.cycle_factor) == ("cosine_restarts", 10, 2)
    assert (schedule.minimum_lr, schedule.warmup_epochs) == (1e-6, 5)
    assert recipe.losses["variance"] == {"form": "legacy"}
    assert recipe.plateau is recipe.rollback is recipe.noise is recipe.early_stopping is None
    assert all(str(tmp_path) in warning for warning in warnings)
    assert any("variance_weight: 0.2 was ignored by the diary's code (0.25 was used)" in text for text in warnings)


def test_result_is_a_recipe_that_loads(imported, tmp_path):
    for content in (FLAT, progressive()):
        recipe, _ = imported(content)
        path = tmp_path / "recipe.yaml"
        path.write_text(recipe_to_yaml(recipe), encoding="utf-8")
        assert load_recipe(path) == recipe


def test_both_spellings_of_weights_agree(imported):
    long, long_warnings = imported(progressive())
    short, short_warnings = imported(progressive(suffix=""))
    assert long == short
    assert [(phase.start, dict(phase.weights)) for phase in long.phases] == [(0, SPANS[0][2]), (31, SPANS[1][2]),
                                                                            (61, SPANS[2][2])]  # fmt: skip
    assert sum("would not have found 'dice'" in warning for warning in short_warnings) == 3
    assert not any("would not have found" in warning for warning in long_warnings)


def test_top_level_weights_are_read(imported):
    flat = {key: value for key, value in FLAT.items() if key != "loss_weights"}
    recipe, _ = imported({**flat, "dice_weight": 0.7, "focal_weight": "3e-1"})
    assert recipe.phases[0].weights == {"dice": 0.7, "focal": 0.3}
    assert "got also loss_weights" in error_of(imported, {**FLAT, "dice_weight": 0.7})


@pytest.mark.parametrize(("spelling", "other"), [("num_epochs", "epochs"), ("learning_rate", "lr")])
def test_either_spelling_but_not_both(imported, spelling, other):
    renamed = {other if key == spelling else key: value for key, value in FLAT.items()}
    assert imported(renamed)[0] == imported(FLAT)[0]
    assert f"{spelling} and {other}, got both" in error_of(imported, {**FLAT, other: 1})


def test_both_spellings_of_one_weight_are_refused(imported):
    message = error_of(imported, {**FLAT, "loss_weights": {"dice": 1, "dice_weight": 0.5}})
    assert message.startswith("loss_weights.dice_weight: expected one of dice and dice_weight")


def test_last_epoch_end_is_the_number_of_epochs_when_there_is_none(imported):
    recipe, warnings = imported(progressive())
    assert recipe.epochs == 300
    assert any("num_epochs: not in the file, the last epoch_end (300) is taken" in warning for warning in warnings)
    recipe, warnings = imported(progressive(num_epochs=400))
    assert recipe.epochs == 400
    assert any("epochs 301 to 399 keep the weights of the last phase" in warning for warning in warnings)


def test_phases_may_be_listed_in_any_order(imported):
    assert imported(progressive(SPANS[::-1]))[0] == imported(progressive())[0]


@pytest.mark.parametrize(
    ("spans", "part"),
    [
        ([(0, 30), (32, 60)], "epochs 31 to 31 in no phase"),
        ([(0, 30), (40, 60)], "epochs 31 to 39 in no phase"),
        ([(0, 30), (30, 60)], "epochs 30 to 30 in two phases"),
        ([(0, 30), (20, 60)], "epochs 20 to 30 in two phases"),
        ([(1, 30), (31, 60)], "epochs 0 to 0 are in no phase"),
        ([(0, 30), (31, 20)], "progressive_phases.1.epoch_end: expected an epoch from epoch_start (31) on, got 20"),
        ([(0, 30), (31.5, 60)], "progressive_phases.1.epoch_start: expected an integer"),
        ([(-1, 30)], "progressive_phases.0.epoch_start: expected an integer >= 0, got -1"),
        ([(0, None)], "progressive_phases.0.epoch_end: expected an integer"),
    ],
)
def test_gaps_overlaps_and_bad_epochs(imported, spans, part):
    message = error_of(imported, progressive([(begin, end, {"dice": 1}) for begin, end in spans]))
    assert part in message
    assert "config_v2.yaml" in message


@given(st.lists(st.integers(1, 400), min_size=1, max_size=6, unique=True))
def test_touching_phases_become_their_starts(tmp_path_factory, cuts):
    ends = sorted(cuts)
    starts = [0, *(end + 1 for end in ends[:-1])]
    spans = [(begin, end, {"dice": 1.0}) for begin, end in zip(starts, ends, strict=True)]
    path = tmp_path_factory.mktemp("diary") / "d.yaml"
    path.write_text(yaml.safe_dump(progressive(spans, warmup_epochs=0)), encoding="utf-8")
    if any(begin >= ends[-1] for begin, _, _ in spans):
        with pytest.raises(ConfigError, match="before the end of the run"):
            recipe_from_diary(path)
    else:
        assert recipe_from_diary(path)[0].phase_starts() == tuple(starts)


@pytest.mark.parametrize(
    ("weights", "part"),
    [({"dcie": 1}, "Did you mean 'dice'?"), ({"dice": -1}, "got -1"), ({"dice": 0}, "at least one weight"),
     (3, "got 3"), ({"dice": "much"}, "got 'much'")],
)  # fmt: skip
def test_bad_weights(imported, weights, part):
    assert part in error_of(imported, {**FLAT, "loss_weights": weights})
    assert part in error_of(imported, progressive(progressive_phases=[
        {"epoch_start": 0, "epoch_end": 30, "loss_weights": weights}
    ]))  # fmt: skip


def test_phases_switched_off_or_alone(imported):
    both = {**FLAT, **progressive(progressive_loss_schedule=False)}
    recipe, warnings = imported(both)
    assert recipe.phase_starts() == (0,)
    assert any("progressive_phases: left out" in warning for warning in warnings)
    recipe, warnings = imported({**both, "progressive_loss_schedule": True})
    assert recipe.phase_starts() == (0, 31, 61)
    assert any("loss_weights: left out" in warning for warning in warnings)
    without_switch = progressive()
    del without_switch["progressive_loss_schedule"]
    recipe, warnings = imported(without_switch)
    assert recipe.phase_starts() == (0, 31, 61)
    assert any("the diary's code ignored progressive_phases" in warning for warning in warnings)
    assert "expected a list of phases" in error_of(imported, {**FLAT, "progressive_loss_schedule": True})
    assert "loss weights or progressive_phases" in error_of(imported, {"num_epochs": 3})


def test_mechanisms(imported):
    recipe, _ = imported(
        {
            **FLAT,
            "scheduler_type": "plateau",
            "scheduler_patience": 8,
            "scheduler_factor": 0.25,
            "scheduler_threshold": 5e-4,
            "grad_clip_norm": 0.5,
            "swa_enabled": True,
            "swa_start_epoch": 40,
            "swa_lr": 5e-5,
            "swa_update_freq": 5,
            "noise_enabled": True,
            "noise_start_epoch": 30,
            "noise_frequency": 5,
            "noise_std": 2e-3,
            "noise_decay": 0.85,
            "noise_target_layers": ["decoders", "output"],
            "early_stopping_patience": 60,
            "catastrophic_degradation_threshold": 0.2,
            "adaptive_interventions_enabled": True,
            "adaptive_intervention_patience": 3,
            "adaptive_intervention_lr_multiplier": 1.2,
            "batch_size": 4,
            "patch_size": [128, 96, 64],
            "initial_filters": 16,
            "focal_alpha": 0.3,
            "focal_gamma": 1.5,
            "use_class_weights": True,
            "background_weight": 1.0,
            "foreground_weight": 5.0,
            "postprocess": {"threshold": 0.6},
        }
    )
    schedule = recipe.lr_schedule
    assert (schedule.name, schedule.patience, schedule.factor, schedule.threshold) == ("plateau", 8, 0.25, 5e-4)
    assert recipe.gradient_clip == 0.5
    averaging = recipe.averaging
    assert (averaging.kind, averaging.start, averaging.lr, averaging.every) == ("swa", 40, 5e-5, 5)
    assert (recipe.noise.start, recipe.noise.every, recipe.noise.std, recipe.noise.decay) == (30, 5, 2e-3, 0.85)
    assert recipe.noise.parameters == ("decoder.stages.*", "decoder.seg_layers.*")
    assert recipe.early_stopping.patience == 60
    assert recipe.rollback.catastrophic == 0.2
    assert (recipe.plateau.patience, recipe.plateau.max_lr_scale) == (3, 1.2)
    assert (recipe.network.batch_size, recipe.network.patch_size, recipe.network.features) == (4, (128, 96, 64), 16)
    assert recipe.losses["focal"] == {"alpha": 0.3, "gamma": 1.5, "class_weights": (1.0, 5.0)}
    assert recipe.inference.threshold == 0.6


def test_mechanisms_switched_off_rest(imported):
    recipe, warnings = imported(
        {
            **FLAT,
            "swa_enabled": False,
            "swa_lr": 1e-5,
            "noise_std": 0.1,
            "use_class_weights": False,
            "foreground_weight": 3,
        }
    )
    assert recipe.averaging.kind == "none"
    assert recipe.noise is None
    assert "focal" not in recipe.losses
    assert any("swa_lr: left out, swa_enabled is not true" in warning for warning in warnings)
    assert any("noise_std: left out" in warning for warning in warnings)
    assert any("foreground_weight: left out" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("given", "name", "momentum"),
    [("SGD", "sgd", 0.99), ("AdamW", "adamw", None), ("adam", "adamw", None),
     ("SGD with CosineAnnealingWarmRestarts", "sgd", 0.99)],
)  # fmt: skip
def test_optimizer(imported, given, name, momentum):
    recipe, warnings = imported({**FLAT, "optimizer": given})
    assert (recipe.optimizer.name, recipe.optimizer.momentum) == (name, momentum)
    assert any("optimizer: ignored by the diary's code (AdamW was hard-coded)" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("given", "name"),
    [("plateau", "plateau"), ("ReduceLROnPlateau", "plateau"), ("CosineAnnealingWarmRestarts", "cosine_restarts"),
     ("poly", "poly"), ("constant", "constant")],
)  # fmt: skip
@pytest.mark.parametrize("key", ["scheduler_type", "scheduler"])
def test_scheduler_names(imported, key, given, name):
    flat = {old: value for old, value in FLAT.items() if old != "scheduler_type"}
    assert imported({**flat, key: given})[0].lr_schedule.name == name


@pytest.mark.parametrize(("key", "value"), [("optimizer", "LBFGS"), ("scheduler_type", "step")])
def test_unknown_names_of_optimizer_and_scheduler(imported, key, value):
    assert re.match(rf"{key}: expected .*, got '{value}'", error_of(imported, {**FLAT, key: value}))


def test_nothing_is_dropped_silently(imported):
    extra = {"learning_rat": 3, "depth": 4, "postprocess": {"min_component_size": 100}, "surface_magic": [1, 2]}
    _, warnings = imported({**FLAT, **extra})
    text = "\n".join(warnings)
    assert "learning_rat: unknown key with value 3, left out. Did you mean 'learning_rate'?" in text
    assert "surface_magic: unknown key with value [1, 2], left out" in text
    assert "depth: left out" in text
    assert "postprocess.min_component_size: left out" in text


def test_unknown_key_inside_a_phase(imported):
    content = progressive()
    content["progressive_phases"][1]["weigths"] = 3
    assert any("progressive_phases.1.weigths: unknown key" in warning for warning in imported(content)[1])


def test_absent_settings_take_the_diarys_defaults_and_say_so(imported):
    recipe, warnings = imported({"loss_weights": {"dice": 1.0}, "swa_enabled": True, "noise_enabled": True})
    assert (recipe.epochs, recipe.optimizer.lr, recipe.optimizer.weight_decay) == (50, 1e-3, 1e-5)
    assert (recipe.lr_schedule.name, recipe.averaging.start, recipe.averaging.lr) == ("plateau", 30, 5e-5)
    assert recipe.noise.start == 30
    for key in ("num_epochs", "learning_rate", "weight_decay", "scheduler_type", "swa_start_epoch", "swa_lr"):
        assert any(f"{key}: not in the file, the diary's default" in warning for warning in warnings)


def test_a_mechanism_that_never_starts_is_named(imported):
    _, warnings = imported({**FLAT, "num_epochs": 50, "noise_enabled": True, "noise_start_epoch": 50})
    assert any("noise.start: epoch 50 is past the last of 50 epochs" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("content", "part"),
    [("", "got None"), ("- a\n", "mapping"), ("a: [\n", "line 2"), ("lr: 1\nlr: 2\n", "occurs twice"),
     ("num_epochs: many\nloss_weights: {dice: 1}\n", "epochs: expected an integer >= 1, got 'many'"),
     ("swa_enabled: maybe\nloss_weights: {dice: 1}\n", "swa_enabled: expected true or false")],
)  # fmt: skip
def test_bad_file(imported, content, part):
    message = error_of(imported, content)
    assert part in message
    assert "config_v2.yaml" in message


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        recipe_from_diary(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("file", "name"),
    [("config.yaml", "config"), ("config_v2_optimized_target_0.35.yaml", "v2_optimized_target_0_35"),
     ("My-Diary!.yml", "my_diary"), ("___.yaml", "diary")],
)  # fmt: skip
def test_name_comes_from_the_file(imported, file, name):
    assert imported(FLAT, file)[0].name == name


def test_every_pair_of_optional_groups_imports(imported):
    groups = [
        {"swa_enabled": True},
        {"noise_enabled": True},
        {"early_stopping_patience": 20},
        {"scheduler_type": "plateau"},
        {"postprocess": {"threshold": 0.7}},
        {"adaptive_interventions_enabled": True},
    ]
    for first, second in itertools.combinations(groups, 2):
        imported({**FLAT, **first, **second})
