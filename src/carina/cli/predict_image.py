"""``carina predict-image``: what a network of ``carina train birds`` takes a photo for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass
class PredictImage:
    """Classify photos with a network of `carina train birds`."""

    image: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Photos, of any size; each is resized to 32 x 32."""
    weights: Path
    """Folder of a run: RUNS/MODEL/seed-N."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> None:
        """Print the probability of each class for each photo."""
        import json

        import torch

        from carina.data.pictures import open_photo, picture_tensor
        from carina.errors import UsageError
        from carina.tasks.birds import class_probabilities, load_birds
        from carina.tasks.birds_data import SIZE_HW

        if not self.image:
            raise UsageError("carina predict-image needs a photo")
        model, classes = load_birds(self.weights)
        images = torch.stack([picture_tensor(open_photo(path), SIZE_HW) for path in self.image])
        answers = [dict(zip(classes, p.tolist(), strict=True)) for p in class_probabilities(model, images)]
        likeliest = [max(answer, key=lambda name: answer[name]) for answer in answers]
        if self.json:
            told = zip(self.image, likeliest, answers, strict=True)
            print(json.dumps([{"image": str(path), "answer": name, "p": p} for path, name, p in told], indent=2))
            return
        for path, name, answer in zip(self.image, likeliest, answers, strict=True):
            print(f"{path}: {name} ({', '.join(f'{other} {p:.3f}' for other, p in answer.items())})")
