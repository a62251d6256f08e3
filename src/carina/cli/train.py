"""``carina train``: from data to weights with a card."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from carina.cli.train_scans import Malignancy, Nodule, Segmentation
from carina.cli.train_small import Birds, Thermometer


@dataclass
class Train:
    """Train a network: segmentation, nodule or malignancy; or a small one: thermometer or birds."""

    task: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Segmentation, tyro.conf.subcommand("segmentation")]
        | Annotated[Nodule, tyro.conf.subcommand("nodule")]
        | Annotated[Malignancy, tyro.conf.subcommand("malignancy")]
        | Annotated[Thermometer, tyro.conf.subcommand("thermometer")]
        | Annotated[Birds, tyro.conf.subcommand("birds")]
    ]
    """What to learn."""

    def run(self) -> None:
        """Train the chosen task."""
        self.task.run()
