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
        answers = [
            {"image": str(path), "answer": classes[int(p.argmax())], "p": dict(zip(classes, p.tolist(), strict=True))}
            for path, p in zip(self.image, class_probabilities(model, images), strict=True)
        ]
        if self.json:
            print(json.dumps(answers, indent=2))
            return
        for answer, path in zip(answers, self.image, strict=True):
            shown = ", ".join(f"{name} {p:.3f}" for name, p in dict(answer["p"]).items())
            print(f"{path}: {answer['answer']} ({shown})")
