"""Mirrored copies, over which both stages may average their answers: cheap test-time augmentation."""

FLIPS: tuple[tuple[int, ...], ...] = ((), (2,), (1,), (0,), (1, 2), (0, 2), (0, 1), (0, 1, 2))
"""Axes (z, y, x) that each copy is mirrored along, best first: a card's ``flips`` says how many of them are taken."""
