"""Every runtime gives PyTorch's numbers, and one place chooses among them."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from carina.errors import UsageError
from carina.models.build import build
from carina.models.card import Card, save_model
from carina.pipeline import runtime
from carina.pipeline.runtime import RUNTIMES, Network, Runtime, choose_device, choose_runtime

CPU = torch.device("cpu")
FASTER = tuple(name for name in RUNTIMES if name != "torch")
TOLERANCE = 1e-5
"""Largest difference of a probability: the order of summation is all that differs."""


def save(folder: Path, task: str, **spec: object) -> Path:
    torch.manual_seed(0)
    module = build(spec)
    for part in module.modules():  # statistics that no fresh network has, so that a wrong order of layers shows
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 2.0)
    save_model(folder / task, module, Card("tiny", task, spec))
    return folder / task


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("unet"), "segmentation", kind="unet", in_channels=5, depth=3, first_filters=4)


@pytest.fixture(scope="module")
def nodule(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("nodule"), "nodule", kind="nodule", first_filters=2)


def load(path: Path, name: Runtime) -> Network:
    if name != "torch" and not (find_spec("onnx") and find_spec(name)):
        pytest.skip(f"{name} is not installed")
    return Network.load(path, CPU, name)


def scaled(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("name", FASTER)
@pytest.mark.parametrize("shape", [(1, 5, 8, 8), (3, 5, 24, 36), (4, 5, 60, 28)])
def test_unet_agrees_with_torch_at_any_batch_height_and_width(unet: Path, name: Runtime, shape: tuple) -> None:
    batch = scaled(shape)
    expected, found = load(unet, "torch")(batch), load(unet, name)(batch)
    assert found.shape == (shape[0], 1, *shape[2:])
    assert found.dtype == np.float32
    np.testing.assert_allclose(1 / (1 + np.exp(-found)), 1 / (1 + np.exp(-expected)), atol=TOLERANCE)


@pytest.mark.parametrize("name", FASTER)
@pytest.mark.parametrize("count", [1, 5])
def test_nodule_network_agrees_with_torch(nodule: Path, name: Runtime, count: int) -> None:
    batch = scaled((count, 1, 32, 48, 48))
    expected, found = load(nodule, "torch")(batch), load(nodule, name)(batch)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", RUNTIMES)
def test_answers_stay_when_the_network_is_called_again(unet: Path, name: Runtime) -> None:
    network = load(unet, name)
    first = network(scaled((2, 5, 16, 16)))
    kept = first.copy()
    network(-scaled((2, 5, 16, 16)))
    np.testing.assert_array_equal(first, kept)


CORES_WHILE_COMPUTING = """
import os, sys, threading
from contextlib import suppress
from pathlib import Path
import numpy as np, torch
from carina.pipeline.runtime import Network

free, seen, done = os.sched_getaffinity(0), set(), threading.Event()
network = Network.load(Path(sys.argv[1]), torch.device("cpu"), sys.argv[2])

def watch():
    while not done.wait(0.001):
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):  # it has just ended
                seen.add(frozenset(os.sched_getaffinity(int(thread))))

watcher = threading.Thread(target=watch)
watcher.start()
for _ in range(20):
    network(np.zeros((4, 5, 64, 64), np.float32))
done.set()
watcher.join()
sys.exit(0 if seen == {frozenset(free)} else f"bound to {seen}")
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores of threads are read from Linux")
@pytest.mark.parametrize("name", RUNTIMES)
def test_no_thread_is_bound_to_a_core_that_other_processes_want_too(unet: Path, name: Runtime) -> None:
    load(unet, name)
    command = [sys.executable, "-c", CORES_WHILE_COMPUTING, str(unet), name]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("name", RUNTIMES)
def test_name_and_version_of_the_runtime_go_into_the_report(unet: Path, name: Runtime) -> None:
    assert load(unet, name).runtime.startswith(f"{name} ")
    assert load(unet, name).runtime.endswith(" on cpu")


def test_torch_is_what_is_left_without_the_faster_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda package: None)
    assert choose_runtime("auto", CPU) == "torch"


def test_the_fastest_installed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda package: None if package == "openvino" else object())
    assert choose_runtime("auto", CPU) == "onnxruntime"
    monkeypatch.setattr(runtime, "find_spec", lambda package: object())
    assert choose_runtime("auto", CPU) == "openvino"


def test_a_gpu_is_left_to_torch() -> None:
    assert choose_runtime("auto", torch.device("cuda")) == "torch"
    with pytest.raises(UsageError, match="CPU only"):
        choose_runtime("openvino", torch.device("cuda"))


def test_a_runtime_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda package: None)
    with pytest.raises(UsageError, match="pip install onnx openvino"):
        choose_runtime("openvino", CPU)


@pytest.mark.parametrize(("choose", "name"), [(choose_runtime, "tensorrt"), (choose_device, "tpu")])
def test_unknown_names_are_refused_with_the_known_ones(choose: object, name: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}'; choose one of auto, "):
        choose(name)


def test_an_absent_device_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(UsageError, match="not present"):
        choose_device("cuda:0")
