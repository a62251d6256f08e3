"""Files in and out: every format becomes a ``Volume``. Must not import torch."""
