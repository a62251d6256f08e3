"""What MkDocs runs before it builds: code in pages finds the modules of this folder, and takes one core only."""

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch

HERE = Path(__file__).parent


def on_config(*_: object, **__: object) -> None:
    """Let code in pages import from here, draw without a screen, and use one core."""
    sys.path.insert(0, str(HERE))
    mpl.use("svg")
    mpl.rcParams.update({"figure.figsize": (6.4, 3.4), "figure.constrained_layout.use": True, "svg.fonttype": "none"})
    torch.set_num_threads(1)
    # A page that warns is mended, not published.
    warnings.filterwarnings("error", module=r"_code_block_|carina\.")


def on_post_build(config: Mapping[str, Any], **_: object) -> None:
    """Empty the two files of markdown-exec that load from another host; they are for code run in the browser."""
    for name in ("_markdown_exec_pyodide.css", "_markdown_exec_pyodide.js"):
        (Path(config["site_dir"]) / "assets" / name).write_text("")
