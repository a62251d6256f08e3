"""How far a whole analysis is, from the stage it is in. Must not know what the stages do."""

SHARES = {
    "read": 0.05,
    "lungs": 0.15,
    "segment": 0.58,
    "group": 0.02,
    "classify": 0.14,
    "diagnose": 0.03,
    "write": 0.03,
}
"""Share of each stage in the whole, from runs on two CPU cores."""


def overall(stage: str, done: float) -> float:
    """Fraction of the whole, in [0, 1], when ``stage`` is done to the fraction ``done``."""
    before = 0.0
    for name, share in SHARES.items():
        if name == stage:
            return min(1.0, before + share * done)
        before += share
    return before
