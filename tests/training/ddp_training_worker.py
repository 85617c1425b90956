"""One rank of a distributed training on CPU; see test_ddp_training.py."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

import torch
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from nnunet_topo.training import trainers
from nnunet_topo.training.journal import json_legal


def main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(seconds=200))
    # Stock nnU-Net takes for granted that every rank has a GPU.
    stock.DDP = lambda network, device_ids: DistributedDataParallel(network)
    LocalLogger.plot_progress_png = lambda *_: None
    trainers.draw_progress = lambda *_, **__: None
    settings = json.loads(Path(folder, "settings.json").read_text())
    trainer = trainers.nnUNetTrainerTopo(settings["plans"], "3d_fullres", 0, settings["dataset"], torch.device("cpu"))
    trainer.device, trainer.grad_scaler = torch.device("cpu"), None

    decided: list[object] = []
    report, end, measure = trainer.report, trainer.on_epoch_end, trainer.on_validation_epoch_end

    def recorded_report(events: list) -> None:
        decided.extend([trainer.current_epoch, e.what, e.why, e.before, e.after, repr(e.action)] for e in events)
        report(events)

    def recorded_end() -> None:
        decided.append({"epoch": trainer.current_epoch, **trainer.epoch_record})
        end()

    own: list[object] = []

    def recorded_measure(outputs: list) -> None:
        own.append([output["tp_hard"].tolist() for output in outputs])
        measure(outputs)

    trainer.report, trainer.on_epoch_end, trainer.on_validation_epoch_end = (
        recorded_report,
        recorded_end,
        recorded_measure,
    )
    trainer.run_training()
    kept = trainer.average.state_dict()["raw_weights"]
    torch.save(
        {
            "decided": json.dumps(json_legal(decided)),
            "own": own,
            "weights": trainer.network.module.state_dict(),
            "raw": kept,
            "momentum": len(trainer.optimizer.state),
        },
        Path(folder, f"rank{rank}.pt"),
    )
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
