"""Figures of a page as SVG inside it, on paper of their own so that they read in light and in dark."""

from io import StringIO

from matplotlib import pyplot as plt
from matplotlib.figure import Figure


def svg(figure: Figure) -> str:
    """The figure as an HTML element; it is closed."""
    drawn = StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    plt.close(figure)
    return f'<div class="figure">{drawn.getvalue()[drawn.getvalue().index("<svg") :]}</div>'
