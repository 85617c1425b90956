"""Arguments that several subcommands have."""

from __future__ import annotations

import argparse

from nnunet_topo.errors import ConfigError


def add_processes(parser: argparse.ArgumentParser, default: int) -> None:
    """Add `-np`."""
    parser.add_argument(
        "-np",
        "--processes",
        type=int,
        default=default,
        metavar="N",
        help="cases at once, in processes of their own; with 1, everything runs in one process (default: %(default)s)",
    )


def require_processes(arguments: argparse.Namespace) -> None:
    """Refuse a number that no work can be done with.

    Raises:
        ConfigError: fewer than one.
    """
    if arguments.processes < 1:
        raise ConfigError(f"-np: expected at least 1, got {arguments.processes}. Leave it out for the default.")
