"""Triton's interpreter runs the kernels on a CPU; its compiler makes GPU code of them without a GPU."""

import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from nnunet_topo.functional import cldice, skeleton_step
from nnunet_topo.functional.skeleton_step import agree, steps_for

# `functional.skeleton` is also the name of a function.
skeleton = sys.modules["nnunet_topo.functional.skeleton"]
KERNELS = Path(skeleton_step.__file__).with_name("skeleton_kernels.py")
CPU = torch.device("cpu")
TORCH = steps_for(torch.zeros(1, 1, 2, 2))

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton exists for Linux on x86-64 alone, where CI has it"
)


@pytest.fixture(scope="module")
def load_copy(tmp_path_factory):
    """A copy of the module, its text changed or not: whether Triton interprets is settled when a kernel is defined."""

    def load(change=lambda text: text):
        file = tmp_path_factory.mktemp("kernels") / "interpreted_kernels.py"  # Triton reads the source
        file.write_text(change(KERNELS.read_text()))
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        yield load


@pytest.fixture(scope="module")
def kernels(load_copy):
    return load_copy()


def values(shape, *, seed):
    """Tenths from 0 to 1: plenty of ties."""
    return torch.randint(0, 11, (2, 1, *shape), generator=torch.Generator().manual_seed(seed)) / 10


@pytest.mark.parametrize("shape", [(9, 8), (1, 7), (5, 6, 7), (10, 9, 8), (3, 1, 9)])
def test_each_step_equals_pytorch_to_the_bit(kernels, shape):
    image, found, gradient = (values(shape, seed=seed) for seed in range(3))
    eroded = TORCH.erode_cross(image)
    assert torch.equal(kernels.erode_cross(image), eroded)
    assert torch.equal(kernels.add_residue(image, eroded, found), TORCH.add_residue(image, eroded, found))
    for ours, theirs in zip(
        kernels.residue_backward(image, eroded, found, gradient),
        TORCH.residue_backward(image, eroded, found, gradient),
        strict=True,
    ):
        assert torch.equal(ours, theirs)
    ours = kernels.erode_cross_backward(gradient, image, eroded)
    assert torch.equal(ours, TORCH.erode_cross_backward(gradient, image, eroded))


def test_the_loss_and_its_gradient_are_the_same(kernels, monkeypatch):
    probabilities, mask = values((6, 7, 5), seed=0).reshape(1, 2, 6, 7, 5), values((6, 7, 5), seed=1) > 0.3
    results = []
    for steps in (TORCH, kernels):
        monkeypatch.setattr(skeleton, "steps_for", lambda _, steps=steps: steps)
        p = probabilities.clone().requires_grad_()
        loss = cldice.soft_cldice_loss(p, mask.reshape(p.shape))
        loss.backward()
        results.append((loss, p.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][1].any()


def test_kernels_that_differ_are_found_out(kernels):
    assert agree(TORCH, kernels, CPU)
    for name in ("erode_cross", "erode_cross_backward", "add_residue", "residue_backward"):
        wrong = types.SimpleNamespace(**{key: getattr(kernels, key) for key in dir(kernels) if "_" in key})
        right = getattr(kernels, name)

        def broken(*arguments, right=right):
            result = right(*arguments)
            return (result[0], result[1] + 0.01, result[2]) if isinstance(result, tuple) else result + 1

        setattr(wrong, name, broken)
        assert not agree(TORCH, wrong, CPU), name


def test_blocks_beyond_the_first_are_compared(load_copy):
    assert not agree(TORCH, load_copy(lambda text: text.replace("tl.program_id(0) * BLOCK", "0 * BLOCK")), CPU)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int16])
def test_other_types_are_left_to_pytorch(monkeypatch, dtype):
    asked = []
    monkeypatch.setattr(skeleton_step, "_kernels", lambda device: asked.append(device))
    image = types.SimpleNamespace(is_cuda=True, device="cuda:0", dtype=dtype)
    assert isinstance(steps_for(image), skeleton_step._Torch)
    assert not asked
    image.dtype = torch.float32
    assert isinstance(steps_for(image), skeleton_step._Torch)
    assert asked == ["cuda:0"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: the interpreter ran the kernels above")
def test_on_a_gpu_loss_and_gradient_are_those_of_the_cpu():
    device = torch.device("cuda", torch.cuda.current_device())
    assert skeleton_step._kernels(device) is not None
    probabilities, mask = values((32, 48, 64), seed=0), values((32, 48, 64), seed=1) > 0.3
    results = []
    for place in (CPU, device):
        p = probabilities.to(place).requires_grad_()
        loss = cldice.soft_cldice_loss(p, mask.to(place), iterations=5)
        loss.backward()
        results.append((loss.detach().cpu(), p.grad.cpu()))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "trouble",
    [
        RuntimeError("no C compiler"),
        OSError("read-only"),
        AssertionError("libcuda not found"),
        ImportError("cannot load"),
        None,
    ],
)
def test_kernels_that_do_not_run_here_leave_the_work_to_pytorch(kernels, monkeypatch, trouble):
    def agree(*_):
        if trouble:
            raise trouble
        return False

    monkeypatch.setattr(skeleton_step, "agree", agree)
    monkeypatch.setattr(skeleton_step.importlib, "import_module", lambda _: kernels)
    skeleton_step._kernels.cache_clear()
    with pytest.warns(UserWarning, match=str(trouble) if trouble else "differ from PyTorch's"):
        assert skeleton_step._kernels(CPU) is None
    skeleton_step._kernels.cache_clear()


COMPILE_ALL = """
import importlib.util, sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

spec = importlib.util.spec_from_file_location("kernels", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
compiled = 0
for name, kernel in vars(module).items():
    if not name.endswith("_kernel"):
        continue
    constants = {"VOLUME": True, "RANGE": 1, "BLOCK": module._BLOCK}
    sizes = ("X", "Y", "Z", "voxels", "size", "stride")
    types = {key: "constexpr" if key in constants else "i32" if key in sizes else "*fp32" for key in kernel.arg_names}
    source = ASTSource(kernel, types, {key: constants[key] for key in kernel.arg_names if key in constants})
    assert len(compile(source, target=GPUTarget("cuda", 80, 32)).asm["cubin"]) > 1000, name
    compiled += 1
assert compiled == 7, compiled
"""


@pytest.mark.slow
def test_every_kernel_compiles_for_a_gpu(tmp_path):
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    subprocess.run([sys.executable, "-c", COMPILE_ALL, str(KERNELS)], env=environment, check=True)
