"""Training: one loop for every task, with its losses, metrics, checkpoints and logs.

Must not know CT, files of data, or any particular network: a task brings them.
"""

from carina.learn.batches import Batches
from carina.learn.engine import fit
from carina.learn.settings import FitResult, FitSettings
from carina.learn.task import Metrics, Task

__all__ = ["Batches", "FitResult", "FitSettings", "Metrics", "Task", "fit"]
