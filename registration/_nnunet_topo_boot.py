"""Makes stock nnU-Net find this package's trainers, at the start of every Python in whose site folder this file lies.

nnU-Net looks a trainer up by `hasattr(module, name)`, beginning with the module of its own trainer. All that happens
at start-up is that a finder goes into `sys.meta_path`; once that module is imported it gains a `__getattr__` that knows
our trainers. Nothing of this package is imported before somebody asks for one. Kept to modules that every Python has
loaded already, since each of its starts pays for it.
"""

import _thread
import os
import sys

HOST = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer"
TRAINERS = "nnunet_topo.training.trainers"
PREFIX = "nnUNetTrainerTopo"
OPT_OUT = "NNUNET_TOPO_DISABLE_AUTOREGISTER"


def main():
    """Register, once, unless the opt-out variable is set."""
    if os.environ.get(OPT_OUT, "").strip().lower() not in ("", "0", "false"):
        return
    if not any(isinstance(finder, _HostFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _HostFinder())
    host = sys.modules.get(HOST)
    if host is not None:
        _extend(host)


class _HostFinder:
    """Finds nnU-Net's trainer module the way the other finders do, and extends it once it has been executed.

    It stays in place, because the module may be imported again after a failed import or a removal from `sys.modules`.
    """

    def __init__(self):
        self.searching = set()

    def find_spec(self, fullname, path=None, target=None):
        thread = _thread.get_ident()
        # Other finders may delegate the same way: without the second condition the two would call each other forever.
        if fullname != HOST or thread in self.searching:
            return None
        self.searching.add(thread)
        try:
            for finder in sys.meta_path:
                find_spec = None if finder is self else getattr(finder, "find_spec", None)
                spec = find_spec(fullname, path, target) if find_spec else None
                if spec is not None:
                    _extend_after_execution(spec.loader)
                    return spec
        finally:
            self.searching.discard(thread)
        return None


def _extend_after_execution(loader):
    # The loader stays what it was, for inspect and reload look at it: an attribute shadows its method until then.
    execute = getattr(loader, "exec_module", None)
    if execute is None or isinstance(loader, type) or getattr(execute, "extends_host", False):
        return

    def exec_module(module):
        if module.__name__ == HOST:
            del loader.exec_module
        execute(module)
        if module.__name__ == HOST:
            _extend(module)

    exec_module.extends_host = True  # type: ignore[attr-defined]
    try:
        loader.exec_module = exec_module
    except AttributeError:  # a loader with slots: stock nnU-Net works on, `nnunet-topo doctor` reports the rest
        return


def _extend(host):
    previous = host.__dict__.get("__getattr__")
    if getattr(previous, "knows_topo_trainers", False):
        return

    def __getattr__(name):
        if name.startswith(PREFIX):
            trainers = _import_trainers(name)
            if name in trainers.__dict__:
                return trainers.__dict__[name]
        if previous is not None:
            return previous(name)
        raise AttributeError(f"module {host.__name__!r} has no attribute {name!r}")

    __getattr__.knows_topo_trainers = True  # type: ignore[attr-defined]
    host.__getattr__ = __getattr__


def _import_trainers(name):
    import importlib

    try:
        return importlib.import_module(TRAINERS)
    except (ImportError, AttributeError) as error:
        # An AttributeError would make hasattr() say "no such trainer" and hide the cause.
        raise ImportError(
            f"{name}: nnU-Net asked nnunet-topo for this trainer, but {TRAINERS} cannot be imported: {error}. Run "
            "`nnunet-topo doctor`, or `pip install --force-reinstall --no-deps nnunet-topo` if the package is damaged."
        ) from error
