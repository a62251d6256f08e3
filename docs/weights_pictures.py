"""Draw the reliability plot of the shipped probabilities from their card: ``python docs/weights_pictures.py``.

Writes ``docs/assets/reliability.svg``, which ``docs/reference/weights.md`` shows.
"""

from importlib.resources import as_file, files
from pathlib import Path

from carina.evaluate.curves import wilson_interval
from carina.evaluate.figures import DIAGONAL, UNIT_TICKS
from carina.evaluate.page import Line, Plot, draw
from carina.models.card import load_card

TARGET = Path(__file__).parent / "assets" / "reliability.svg"
STYLE = (
    "<style>text{font:12px sans-serif;fill:#5a6b74}.grid{stroke:#dfe5e8}.curve{fill:none;stroke-width:2}</style>"
    '<rect width="460" height="340" fill="#fff"/>'
)


def main() -> None:
    """Draw and write."""
    with as_file(files("carina") / "weights" / "nodule.json") as path:
        bins = load_card(path).reliability
    points = tuple((one.mean_probability, one.fraction) for one in bins)
    limits = tuple(wilson_interval(round(one.fraction * one.count), one.count) for one in bins)
    line = Line(f"{sum(one.count for one in bins)} candidates, out of fold", points, limits, marks=True)
    plot = Plot("Reliability", "mean p_nodule", "fraction that are nodules", UNIT_TICKS, (line, DIAGONAL))
    svg = draw(plot).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    head, _, body = svg.partition(">")
    TARGET.write_text(f"{head}>{STYLE}{body}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
