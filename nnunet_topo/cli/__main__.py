"""`nnunet-topo`: finds the subcommand, runs it, and turns what users can cause into an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from nnunet_topo import __version__
from nnunet_topo.cli import balance, check, compare, doctor, evaluate, find_best, plan, recipe, report, synth
from nnunet_topo.errors import TopoError

# Each has add_parser(subparsers), which sets `run`: (arguments) -> exit status.
SUBCOMMANDS = (plan, recipe, check, evaluate, compare, find_best, balance, report, synth, doctor)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command, every subcommand included."""
    parser = argparse.ArgumentParser(
        prog="nnunet-topo",
        description="Topology-aware training for nnU-Net v2. Training, prediction and model selection are nnU-Net's "
        "own commands (-tr nnUNetTrainerTopoProgressive); here is what goes around them.",
        epilog="Exit status: 0; 1 after an error, which is one line on standard error, and where a subcommand says so; "
        "2 after wrong usage. 'nnunet-topo SUBCOMMAND --help' has the details.",
    )
    parser.add_argument("--version", action="version", version=f"nnunet-topo {__version__}")
    subparsers = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND", required=True)
    for module in SUBCOMMANDS:
        module.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments without the program's name; those of the process if None.

    Returns:
        Exit status: 0, or what the subcommand says, 1 after an error that the user can mend, 130 after Ctrl-C, 141 when
        the reader of a pipe went away.
    """
    arguments = build_parser().parse_args(argv)
    try:
        status = arguments.run(arguments)
        # Within the try: a closed pipe shows only when the buffer is written.
        sys.stdout.flush()
    except TopoError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        # The interpreter flushes once more on its way out, and would report the same error again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # What only the machine knows: a full disk, a folder that may not be written to.
        place = f" {error.filename}." if error.filename else ""
        sys.stderr.write(
            f"error: file: expected to read or write it, got {error.strerror or error}.{place} "
            "Check its path, its permissions, and the room on the disk.\n"
        )
        return 1
    return int(status or 0)


if __name__ == "__main__":
    sys.exit(main())
