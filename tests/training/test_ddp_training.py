"""nnU-Net's distributed training, two processes with gloo: both ranks measure, decide and hold the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

WORKER = Path(__file__).with_name("ddp_training_worker.py")
RECIPE: dict[str, Any] = {
    "name": "both",
    "epochs": 8,
    "iterations_per_epoch": 2,
    "validation_iterations": 1,
    "seed": 5,
    "conflict_every": 3,
    "lr_schedule": {"name": "plateau", "patience": 2, "threshold": 10.0},
    "monitor": {"patches": 3, "smoothing_epochs": 1},  # one rank has more of them than the other
    "phases": [
        {"from": 0, "weights": {"dice": 1.0}},
        {"from": 1, "weights": {"dice": 0.6, "ce": 0.2, "boundary": 0.2}},
    ],
    "plateau": {"patience": 2, "threshold": 100.0, "cooldown": 0, "evaluation_epochs": 1, "actions": ["noise"]},
    "rollback": {"degradation_epochs": None, "catastrophic": 0.5, "max_rollbacks": 1},
    "noise": {"start": 5, "every": 9, "std": 30.0, "parameters": "all"},
    "averaging": {"kind": "ema", "start": 2, "decay": 0.8},
}


@pytest.mark.slow
def test_ranks_decide_alike_and_end_with_the_same_weights(nnunet: Path, preprocessed: Path, tmp_path: Path) -> None:
    folder = preprocessed / "nnUNet_preprocessed" / "Dataset902_ignore"
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    plans |= {"continue_training": False, "nnunet_topo": {"recipe": RECIPE}}
    plans["configurations"]["3d_fullres"]["batch_dice"] = True  # so that the loss itself talks between the ranks
    dataset = json.loads((folder / "dataset.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps({"plans": plans, "dataset": dataset}))
    logs = [tmp_path / f"log{rank}.txt" for rank in (0, 1)]
    processes = []
    for rank, log in enumerate(logs):
        with log.open("w") as stream:
            command = [sys.executable, str(WORKER), str(rank), str(tmp_path)]
            environment = {**os.environ, "MPLBACKEND": "Agg"}
            processes.append(subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT))
    codes = [process.wait(timeout=300) for process in processes]
    assert codes == [0, 0], "\n".join(log.read_text()[-3000:] for log in logs)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))

    assert first["decided"] == second["decided"]
    assert first["own"] != second["own"]  # they saw batches of their own, so agreement had to be made
    for name in ("weights", "raw"):
        assert all(torch.equal(value, second[name][key]) for key, value in first[name].items())
    assert any(not torch.equal(value, first["raw"][key]) for key, value in first["weights"].items())

    decided = json.loads(first["decided"])
    events = [(item[0], item[1]) for item in decided if isinstance(item, list)]
    assert {(1, "phase"), (2, "averaging"), (5, "noise"), (5, "rollback"), (7, "averaged")} <= set(events)
    assert any("AddNoise" in item[5] for item in decided if isinstance(item, list) and item[1] == "plateau")
    epochs = [item for item in decided if isinstance(item, dict)]
    assert [epoch["epoch"] for epoch in epochs] == list(range(8))
    assert all(epoch["monitors"]["topology_error"] is not None for epoch in epochs)
    assert "dice|boundary" in epochs[3]["conflict"]
    # The journal is rank 0's record of the same.
    run = next(nnunet.glob("Dataset902_ignore/*/fold_0"))
    journal = [json.loads(line) for line in (run / "topo_journal.jsonl").read_text().splitlines()]
    written = [(line["epoch"], line["what"]) for line in journal if line["kind"] == "event"]
    assert written == events
    measured = [
        {key: line[key] for key in epoch}
        for line, epoch in zip([line for line in journal if line["kind"] == "epoch"], epochs, strict=True)
    ]
    assert measured == epochs
