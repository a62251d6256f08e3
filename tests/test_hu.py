"""M23: the scaling that networks see."""

import numpy as np
import pytest
import torch

from carina.hu import AIR, normalise


def test_the_window_maps_to_minus_one_and_one() -> None:
    hu = np.array([-3024.0, AIR, -300.0, 400.0, 3000.0], np.float32)
    assert normalise(hu, (-1000.0, 400.0)).tolist() == [-1.0, -1.0, 0.0, 1.0, 1.0]


def test_numpy_and_torch_agree() -> None:
    hu = np.linspace(-1200, 900, 50, dtype=np.float32)
    assert np.array_equal(normalise(hu, (-1000, 400)), normalise(torch.from_numpy(hu), (-1000, 400)).numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_type_stays(dtype: type) -> None:
    assert normalise(np.zeros(3, dtype), (-1000, 400)).dtype == dtype
