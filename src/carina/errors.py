"""Every error that Carina raises on purpose, in one tree.

A message says what was found, what was expected, where, and what to do about it. The command line turns a
``CarinaError`` into one line on standard error and exit code 1 (2 for ``UsageError``); nothing else is caught.
"""


class CarinaError(Exception):
    """Base of all errors that a user can act on."""


class UsageError(CarinaError):
    """Arguments or a configuration that cannot be carried out; the data was not looked at."""


class InputError(CarinaError):
    """A file or folder that cannot be read, or that holds something else than was asked for."""


class GeometryError(InputError):
    """Slices that do not form one regular stack: gaps, duplicates, mixed orientation, gantry tilt."""


class NoLungsError(InputError):
    """A CT in which no plausible pair of lungs was found."""


class WeightsError(CarinaError):
    """A model file that is missing, damaged, or that does not fit its card."""


class TrainingError(CarinaError):
    """Training that cannot go on: a loss that is not finite, data without positives."""
