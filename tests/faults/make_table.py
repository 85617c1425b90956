"""Disturb a training in every way that the tests know and write the table of what happened.

    python tests/faults/make_table.py -o docs/faults.md [--kills 50]

Each row is checked while it is made; a check that fails ends it. It takes about ten minutes.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import fault_scenarios as scenarios
import torch
from fault_bench import RECIPE, STEPS_PER_EPOCH, Bench
from tqdm import tqdm

from nnunet_topo.training.atomic import write_atomically

HEAD = """# Faults, each seen

Made by `python tests/faults/make_table.py -o docs/faults.md`, which stops where a check fails, with torch {torch}.
What is behind it is in [reliability.md](reliability.md).

A training of {epochs} epochs with {steps} steps each (training and validation) and a checkpoint in every epoch, on CPU
with single-threaded augmentation (`nnUNet_n_proc_DA=0`), is disturbed, then continued: by `--c` unless the row says
otherwise, in a process in which nnU-Net's blur would choose the other of its two paths. Checked in each row: every
checkpoint on disk can be read, none whose writing was complete is lost, and the journal can be read; at the end, where
the row says so, that weights, optimiser and journal are those of the training that nobody disturbed, bit for bit.

*Left* are the checkpoints on disk behind the fault; *FOLD* is the fold's folder.
"""
TABLE = "| fault | left | what it says | outcome |\n|---|---|---|---|\n"
SECTIONS = {
    "Files, flags and recipes": "files",
    "Signals behind every step": "signals",
    "kill -9 at {kills} random moments": "kills",
}


def rows_of(section: str, bench: Bench, kills: int) -> Iterator[scenarios.Row]:
    """The rows of a section, made one by one."""
    if section == "signals":
        yield scenarios.stop_with_workers(bench)
        for step in scenarios.all_steps():
            name = ("SIGTERM", "SIGUSR1")[step % 2]
            yield scenarios.stop(bench, f"signal {step}", name, step)
    elif section == "kills":
        for index, (told, disturbance) in enumerate(scenarios.kill_moments(bench, kills)):
            yield scenarios.kill(bench, f"kill {index}", told, disturbance)
    else:
        started = scenarios.interrupted(bench)
        yield scenarios.damage(bench, ["final"], source="whole")
        for name in ("latest", "best", "previous"):
            yield scenarios.damage(bench, [name], source=started)
        yield scenarios.damage(bench, ["latest", "best"], source=started)
        yield scenarios.damage(bench, ["latest"], source=started, flip=True)
        yield from scenarios.nothing_left(bench)
        yield from scenarios.malicious(bench)
        yield scenarios.other_recipe(bench)
        yield scenarios.no_checkpoint(bench)
        yield from scenarios.forgotten_flag(bench)
        yield scenarios.disk_full(bench)
        yield from scenarios.not_finite(bench)


def markdown(row: scenarios.Row, folder: Path) -> str:
    """A line of the table, without the places and times of this machine."""
    cells = []
    for cell in (row.fault, row.left, row.said, row.outcome):
        text = re.sub(rf"{re.escape(str(folder))}/cases/.+?/fold_0", "FOLD", cell)
        cells.append(re.sub(r"\s+", " ", text.replace("|", "\\|")).strip())
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Make all rows and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50)
    options = parser.parse_args()
    text = HEAD.format(torch=torch.__version__, epochs=RECIPE["epochs"], steps=STEPS_PER_EPOCH)
    with tempfile.TemporaryDirectory() as folder, Bench(Path(folder)) as bench:
        for title, section in SECTIONS.items():
            text += f"\n## {title.format(kills=options.kills)}\n\n{TABLE}"
            for row in tqdm(rows_of(section, bench, options.kills), desc=section):
                text += markdown(row, Path(folder)) + "\n"
    write_atomically(options.output, text.encode())


if __name__ == "__main__":
    main()
