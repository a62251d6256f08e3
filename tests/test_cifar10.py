"""CIFAR-10 as torchvision downloads it. The archive's form is made up here; its figures are asserted where it lies."""

import pickle
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from carina.data.pictures import channel_statistics
from carina.errors import InputError
from carina.tasks.birds_data import BATCHES, TWO, read_birds, read_cifar10

pytestmark = pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision (extra vision) is not installed")

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
EACH = 20
"""Pictures in each of the six files; the real ones hold 10,000."""


def pixels_of(part: str) -> np.ndarray:
    seed = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"].index(part)
    return np.random.default_rng(seed).integers(0, 256, (EACH, 3072), np.uint8)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / BATCHES
    folder.mkdir()
    for part in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        content = {"data": pixels_of(part), "labels": [index % 10 for index in range(EACH)]}
        (folder / part).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": NAMES}))
    # torchvision knows the checksums of the real files, which these do not have.
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *arguments: True)
    return tmp_path


def test_all_ten_classes_are_read_in_the_order_of_the_files(archive: Path) -> None:
    pictures = read_cifar10(archive, train=True)
    assert pictures.classes == tuple(NAMES)
    assert len(pictures) == 5 * EACH
    assert pictures.labels.tolist() == list(range(10)) * 10
    # A picture's row holds all its red values, then all green, then all blue.
    assert torch.equal(pictures.images[EACH].flatten(), torch.from_numpy(pixels_of("data_batch_2")[0]))


def test_birds_and_airplanes_are_taken_and_numbered_anew(archive: Path) -> None:
    train, test = read_birds(archive)
    assert train.classes == test.classes == TWO
    assert (len(train), len(test)) == (5 * EACH // 5, EACH // 5)
    assert test.labels.tolist() == [0, 1, 0, 1]
    assert torch.equal(test.images[1].flatten(), torch.from_numpy(pixels_of("test_batch")[2]))
    assert test.images.is_contiguous(memory_format=torch.channels_last)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / BATCHES).mkdir()
    (tmp_path / BATCHES / "data_batch_1").write_bytes(b"half of it")
    with pytest.raises(InputError, match="does not hold CIFAR-10 as torchvision downloads it"):
        read_birds(tmp_path)


@pytest.mark.data
def test_its_channel_statistics(data_dir: Path) -> None:  # M14
    if not (data_dir / BATCHES).is_dir():
        pytest.skip(f"no {BATCHES} in {data_dir}")
    mean, deviation = channel_statistics(read_cifar10(data_dir, train=True).images)
    assert mean.tolist() == pytest.approx([0.4915, 0.4823, 0.4468], abs=1e-4)
    assert deviation.tolist() == pytest.approx([0.2470, 0.2435, 0.2616], abs=1e-4)
