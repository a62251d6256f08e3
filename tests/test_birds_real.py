"""Birds and airplanes on the real pictures: the folder's own statistics; the accuracies that networks must reach."""

from pathlib import Path

import pytest

from carina.data.pictures import Pictures, channel_statistics
from carina.tasks.birds import settings_of, train_birds
from carina.tasks.birds_data import read_birds

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def real(data_dir: Path) -> tuple[Pictures, Pictures]:
    return read_birds(data_dir / "cifar2")


def test_the_folder_has_statistics_of_its_own(real: tuple[Pictures, Pictures]) -> None:  # M14
    train, test = real
    assert (len(train), len(test)) == (10_000, 2_000)
    mean, deviation = channel_statistics(train.images)
    # Sky and sea: brighter than all ten classes of CIFAR-10 (0.4915, 0.4823, 0.4468), in blue most of all.
    assert mean.tolist() == pytest.approx([0.5074, 0.5258, 0.5064], abs=5e-4)
    assert deviation.tolist() == pytest.approx([0.2382, 0.2331, 0.2663], abs=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "least"), [("mlp", 0.794), ("cnn", 0.87), ("combined", 0.90)])
def test_the_figures_that_the_networks_must_reach(
    real: tuple[Pictures, Pictures], variant: str, least: float
) -> None:  # M15, M17
    _, result = train_birds(*real, settings_of(variant))
    assert result.test_accuracy >= least
