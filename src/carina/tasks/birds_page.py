"""The wrong answers as one HTML page: each picture with what it is, what it was called, and how surely.

One file without scripts or addresses outside it. Must not know how the network was trained.
"""

import base64
import io
from html import escape
from pathlib import Path

import torch
from PIL import Image

from carina.data.pictures import Pictures
from carina.replacing import replacing
from carina.tasks.birds import BirdsResult

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 24px; font: 15px/1.5 system-ui, sans-serif; }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); gap: 16px; padding: 0; }
li { list-style: none; } img { width: 128px; height: 128px; image-rendering: pixelated; border-radius: 6px; }
figure { margin: 0; } figcaption { font-size: 13px; font-variant-numeric: tabular-nums; }
"""


def write_wrong(test: Pictures, result: BirdsResult, path: Path, most: int = 240) -> Path:
    """Write the page, the surest mistakes first.

    Args:
        test: the pictures that were answered.
        result: the answers.
        path: of the HTML file.
        most: pictures shown at most.

    Returns:
        ``path``.
    """
    wrong = torch.nonzero(~result.right)[:, 0]
    wrong = wrong[result.p_called[wrong].argsort(descending=True)]
    items = []
    for index in wrong[:most].tolist():
        truth, called = test.classes[test.labels[index]], test.classes[result.called[index]]
        caption = f"{called}, p {float(result.p_called[index]):.2f}"
        items.append(
            f'<li><figure><img alt="{escape(truth)}" src="{_data_uri(test, index)}">'
            f"<figcaption>{escape(caption)}<br>is: {escape(truth)}</figcaption></figure></li>"
        )
    title = f"{result.variant}: {len(wrong)} of {len(test)} test pictures answered wrongly"
    if len(wrong) > most:
        title += f", the {most} surest shown"
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{escape(title)}</h1><ul>\n" + "\n".join(items) + "\n</ul></body></html>\n"
    )
    with replacing(path) as draft:
        draft.write_text(page, encoding="utf-8")
    return path


def _data_uri(pictures: Pictures, index: int) -> str:
    file = io.BytesIO()
    Image.fromarray(pictures.images[index].permute(1, 2, 0).numpy()).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
