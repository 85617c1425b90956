"""The compiled Betti matching of the topolosses wheel, without the package around it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from functools import cache
from typing import Any

from nnunet_topo.errors import ConfigError

_INSTALL = "pip install nnunet-topo[betti]"
_MODULE = "topolosses.losses.betti_matching.src.betti_matching"


@cache
def betti_engine() -> Any:
    """The extension module `betti_matching` (Betti-Matching-3D).

    It needs numpy alone; importing topolosses itself would need torchvision, gudhi, POT and opencv. The extension can
    be loaded once a process, so it is shared with a topolosses imported before or later.

    Raises:
        ConfigError: not installed, or not for this Python and platform.
    """
    if _MODULE in sys.modules:
        return sys.modules[_MODULE]
    mend = f"Install it with '{_INSTALL}' (wheels exist for Linux on x86-64), or leave betti_matching out."
    try:
        distribution = importlib.metadata.distribution("topolosses")
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(f"betti_matching: expected its compiled engine, found none. {mend}") from None
    files = [file for file in distribution.files or [] if file.match("betti_matching/src/betti_matching.*.so")]
    if len(files) != 1:
        raise ConfigError(
            f"betti_matching: expected one compiled engine in topolosses {distribution.version}, got {len(files)}. "
            f"{mend}"
        )
    spec = importlib.util.spec_from_file_location(_MODULE, str(distribution.locate_file(files[0])))
    if spec is None or spec.loader is None:
        raise ConfigError(f"betti_matching: expected an extension module, got {files[0]}. {mend}")
    try:
        engine = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(engine)
    except ImportError as error:
        raise ConfigError(f"betti_matching: expected an engine for this Python, got {error}. {mend}") from error
    sys.modules[_MODULE] = engine
    return engine
