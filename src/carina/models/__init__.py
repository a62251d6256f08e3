"""Networks, and the card that travels with their weights.

A network is rebuilt from a plain dict (``build``); its weights are a safetensors file with a JSON card beside it
(``load_model``, ``save_model``). Must not know how networks are trained or what their answers are used for.
"""

from carina.models.build import build
from carina.models.card import Card, load_model, save_model

__all__ = ["Card", "build", "load_model", "save_model"]
