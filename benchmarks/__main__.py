"""``python -m benchmarks [NAME ...]``: all tables of ratios, as Markdown, or the named ones."""

import sys
from importlib import import_module

TABLES = ("detect", "floors", "training", "froc", "serving")
"""Modules of this folder with ``run() -> str``."""

for name in sys.argv[1:] or TABLES:
    print(import_module(f"benchmarks.{name}").run(), end="\n\n", flush=True)
