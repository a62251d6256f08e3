"""A picture of the thermometer's readings and what was learned from them. Must not know how it was learned."""

from pathlib import Path

import torch

from carina.errors import UsageError
from carina.replacing import replacing
from carina.tasks.thermometer import CELSIUS, UNKNOWN, Solution


def draw_fit(solution: Solution, path: Path) -> Path:
    """Draw readings and fit to a file, SVG or PNG by its ending.

    Returns:
        ``path``.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("the plot needs matplotlib, which is not installed: pip install 'carina-ct[train]'") from error
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    readings, truth = torch.tensor(UNKNOWN), torch.tensor(CELSIUS)
    along = torch.linspace(20, 84, 200)
    axes.plot(along.numpy(), solution.celsius(along).numpy(), color="#0d6e78", label=solution.settings.method)
    held = torch.zeros(len(truth), dtype=torch.bool)
    held[list(solution.held_out)] = True
    axes.plot(readings[~held].numpy(), truth[~held].numpy(), "o", color="#17242b", label="learned from")
    if held.any():
        axes.plot(readings[held].numpy(), truth[held].numpy(), "s", color="#b4541a", label="held out")
    axes.set(xlabel="reading on the unknown scale", ylabel="degrees Celsius")
    axes.legend(frameon=False)
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    with replacing(path) as draft:
        figure.savefig(draft, format=path.suffix.lstrip("."), metadata=metadata)
    return path
