"""Networks leave PyTorch: files for other runtimes, each proven equal before it is kept.

``export_model`` writes one network in the formats asked for, measures each against the same network in PyTorch with
float64, and notes all in a manifest. Each format has one module that writes it and runs it; those import their
packages only when they are asked for. Must not know training.
"""

from carina.export.artefacts import FORMATS, export_model
from carina.export.manifest import Artefact
from carina.export.parity import TOLERANCE, Parity
from carina.export.subject import Subject

__all__ = ["FORMATS", "TOLERANCE", "Artefact", "Parity", "Subject", "export_model"]
