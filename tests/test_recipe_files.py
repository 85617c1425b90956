"""The recipes in plans/ against the settings tables of the diary."""

import pytest

from nnunet_topo._recipe_sections import POLICIES
from nnunet_topo.recipe import builtin_recipes, load_recipe

NAMES = {
    "nnunet", "progressive", "v1", "v2_fixed", "v2_optimized", "v3", "v4", "v5", "v6", "v7", "v8_dice_only",
    "v9_progressive", "surface", "surface_finetune", "vessel", "vessel_finetune", "membrane", "membrane_finetune",
}  # fmt: skip

# weights (dice, focal, variance, boundary, cldice), alpha, class weights, lr, weight decay, batch, epochs, warm-up
DIARY = {
    "v1": ((0.2, 0.4, 0.3, 0.05, 0.05), 0.75, (2.94, 1.52), 1e-4, 0.01, 2, 300, 5),
    "v2_fixed": ((0.4, 0.25, 0.2, 0.1, 0.05), 0.4, (1, 3), 1e-4, 0.01, 2, 300, 5),
    "v2_optimized": ((0.4, 0.25, 0.2, 0.1, 0.05), 0.4, (1, 2), 1e-4, 0.01, 2, 300, 5),
    "v3": ((0.5, 0.15, 0.15, 0.15, 0.05), 0.3, (0.8, 3.6), 1e-4, 0.01, 2, 300, 5),
    "v4": ((0.45, 0.15, 0.25, 0.15, 0.05), 0.3, (1, 5), 2e-4, 0.01, 2, 300, 3),
    "v5": ((0.3, 0.15, 0.5, 0.05, 0), 0.4, (1, 2), 1e-4, 0.01, 2, 300, 5),
    "v6": ((0.8, 0.15, 0, 0.05, 0), 0.35, (1, 1.5), 1e-3, 1e-4, 4, 100, 2),
    "v7": ((0.75, 0.15, 0.1, 0, 0), 0.35, (1, 1.5), 1e-3, 1e-4, 8, 100, 2),
    "v8_dice_only": ((1, 0, 0, 0, 0), 0.35, None, 5e-4, 1e-4, 8, 100, 2),
}
TERMS = ("dice", "focal", "variance", "boundary", "cldice")
# schedule, early stopping, clip, threshold, averaging (start, lr), noise (start, every, std, decay)
MECHANISMS = {
    "v1": (("cosine_restarts", 10, 2, 1e-6), 50, 0.5, 0.5, (40, 5e-5), (30, 10, 1e-3, 0.9)),
    "v2_fixed": (("cosine_restarts", 10, 2, 1e-6), 50, 0.5, 0.7, (40, 5e-5), (30, 10, 1e-3, 0.9)),
    "v2_optimized": (("cosine_restarts", 10, 2, 1e-6), 50, 0.5, 0.6, (50, 5e-5), (30, 10, 1e-3, 0.9)),
    "v3": (("cosine_restarts", 10, 2, 1e-6), 50, 0.5, 0.8, (40, 5e-5), (30, 10, 1e-3, 0.9)),
    "v4": (("cosine_restarts", 8, 2, 1e-6), 60, 0.5, 0.6, (20, 1e-4), (15, 5, 2e-3, 0.85)),
    "v5": (("cosine_restarts", 10, 2, 1e-6), 50, 0.5, 0.5, (30, 5e-5), (10, 2, 5e-3, 0.9)),
    "v6": (("plateau", 5, 0.5), 20, 12.0, 0.5, None, None),
    "v7": (("plateau", 5, 0.5), 25, 12.0, 0.5, None, None),
    "v8_dice_only": (("plateau", 5, 0.5), 25, 12.0, 0.5, None, None),
}


def test_all_recipes_are_there():
    assert set(builtin_recipes()) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_file_is_named_after_its_recipe_and_opens_with_its_purpose(name):
    assert load_recipe(name).name == name
    lines = builtin_recipes()[name].read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(f"# {name}: ")
    assert max(map(len, lines)) <= 120
    comment = " ".join(line for line in lines if line.startswith("#"))
    if name in DIARY or name == "v9_progressive":
        for part in ("Meant for:", "What its code really applied:", "Reported:"):
            assert part in comment


@pytest.mark.parametrize("name", DIARY)
def test_diary_settings(name):
    weights, alpha, class_weights, lr, weight_decay, batch, epochs, warmup = DIARY[name]
    recipe = load_recipe(name)
    assert recipe.phase_starts() == (0,)
    assert recipe.phases[0].weights == {term: weight for term, weight in zip(TERMS, weights, strict=True) if weight}
    assert recipe.losses["focal"]["alpha"] == alpha
    assert recipe.losses["focal"]["gamma"] == 2.0
    assert recipe.losses["focal"].get("class_weights") == class_weights
    if "variance" in recipe.phases[0].weights:
        assert recipe.losses["variance"] == {"form": "legacy"}
    if "cldice" in recipe.phases[0].weights:
        assert recipe.losses["cldice"]["iterations"] == 3
    assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.optimizer.weight_decay) == ("adamw", lr, weight_decay)
    assert (recipe.network.batch_size, recipe.network.patch_size) == (batch, (128, 128, 128))
    assert (recipe.epochs, recipe.lr_schedule.warmup_epochs) == (epochs, warmup)


@pytest.mark.parametrize("name", MECHANISMS)
def test_diary_mechanisms(name):
    schedule, patience, clip, threshold, averaging, noise = MECHANISMS[name]
    recipe = load_recipe(name)
    found = recipe.lr_schedule
    if schedule[0] == "plateau":
        assert (found.name, found.patience, found.factor) == schedule
    else:
        assert (found.name, found.first_cycle_epochs, found.cycle_factor, found.minimum_lr) == schedule
    assert recipe.early_stopping.patience == patience
    assert recipe.gradient_clip == clip
    assert recipe.inference.threshold == threshold
    assert recipe.averaging.kind == ("swa" if averaging else "none")
    if averaging:
        assert (recipe.averaging.start, recipe.averaging.lr) == averaging
    assert (recipe.noise is None) == (noise is None)
    if noise:
        assert (recipe.noise.start, recipe.noise.every, recipe.noise.std, recipe.noise.decay) == noise
    assert (recipe.rollback.degradation_epochs, recipe.rollback.catastrophic) == (3, 0.15)
    assert (recipe.plateau.patience, recipe.plateau.threshold) == (5, 0.002)
    assert recipe.plateau.policy in POLICIES


def test_v9_progressive_is_the_diarys_to_the_letter():
    recipe = load_recipe("v9_progressive")
    assert recipe.epochs == 300
    assert recipe.phase_starts() == (0, 31, 61)
    assert [dict(phase.weights) for phase in recipe.phases] == [
        {"dice": 1.0},
        {"dice": 0.8, "focal": 0.2},
        {"dice": 0.75, "focal": 0.15, "variance": 0.05, "boundary": 0.05},
    ]
    assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.optimizer.weight_decay) == ("adamw", 5e-4, 1e-4)
    schedule = recipe.lr_schedule
    assert (schedule.name, schedule.patience, schedule.factor, schedule.warmup_epochs) == ("plateau", 8, 0.5, 2)
    assert (recipe.noise.start, recipe.noise.every, recipe.noise.std, recipe.noise.decay) == (50, 10, 1e-3, 0.9)
    assert (recipe.averaging.kind, recipe.averaging.start, recipe.averaging.lr) == ("swa", 80, 5e-5)
    assert (recipe.early_stopping.patience, recipe.seed) == (40, 20260128)
    assert (recipe.network.batch_size, recipe.network.patch_size) == (8, (128, 128, 128))
    assert recipe.losses["variance"] == {"form": "legacy"}
    assert recipe.losses["focal"] == {"alpha": 0.4, "gamma": 2.0}


def test_progressive_has_v9s_weights_at_the_same_fractions_of_stock_training():
    recipe, diary, stock = load_recipe("progressive"), load_recipe("v9_progressive"), load_recipe("nnunet")
    assert [phase.weights for phase in recipe.phases] == [phase.weights for phase in diary.phases]
    assert recipe.with_overrides(["epochs=300"]).phase_starts() == diary.phase_starts()
    assert recipe.phase_starts() == (0, 103, 203)
    content, expected = recipe.to_mapping(), stock.to_mapping()
    for settings in (content, expected):
        del settings["name"], settings["phases"]
    assert content == expected


def test_nnunet_is_stock():
    recipe = load_recipe("nnunet")
    assert [dict(phase.weights) for phase in recipe.phases] == [{"nnunet": 1.0}]
    assert set(recipe.to_mapping()) - {"name", "phases"}


TOPOLOGY = {
    "surface": {"medial_surface_recall", "separation"},
    "vessel": {"skeleton_recall", "cldice"},
    "membrane": {"medial_surface_recall", "connectivity"},
}


@pytest.mark.parametrize("name", TOPOLOGY)
def test_topology_terms_join_stock_training_late(name):
    recipe, stock = load_recipe(name), load_recipe("nnunet")
    assert recipe.phases[0].weights == stock.phases[0].weights
    assert recipe.phase_starts()[1] >= recipe.epochs / 2
    assert all(phase.ramp_epochs > 0 for phase in recipe.phases[1:])
    assert all(phase.weights["nnunet"] == 1.0 for phase in recipe.phases)
    assert set(recipe.phases[-1].weights) == {"nnunet", *TOPOLOGY[name]}
    assert all(recipe.phases[-1].weights[term] <= 0.5 for term in TOPOLOGY[name])
    content, expected = recipe.to_mapping(), stock.to_mapping()
    for settings in (content, expected):
        del settings["name"], settings["phases"]
    assert content == expected


@pytest.mark.parametrize("name", TOPOLOGY)
def test_finetuning_moves_the_last_layers_slowly_by_the_same_losses(name):
    recipe, whole = load_recipe(f"{name}_finetune"), load_recipe(name)
    assert recipe.phases[-1].weights == whole.phases[-1].weights
    assert recipe.epochs <= whole.epochs / 10
    assert recipe.optimizer.lr <= whole.optimizer.lr / 10
    assert recipe.trainable == ("decoder.stages.-1.*", "decoder.seg_layers.*")
    assert recipe.start_from is None
    assert recipe.with_overrides(["start_from=A__B__C"]).start_from == "A__B__C"
