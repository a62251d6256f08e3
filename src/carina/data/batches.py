"""From a list of crops to batches of tensors, cut from the store's memory maps ahead of the training step.

Only the bytes of the crops are touched. Every process of a distributed run walks the same list and takes its own part
of each batch, so that the union over processes does not depend on their number.

Must not know how crops are chosen (``data.sampling``) or changed (``data.augment``).
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Int16, Int64, UInt8
from torch import Tensor

from carina.data.sampling import CropList
from carina.data.store import IGNORE, Scan
from carina.errors import UsageError
from carina.geometry import Shape3
from carina.hu import AIR


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops as they are stored; voxel ``shape // 2`` is the crop's centre.

    Attributes:
        hu: HU; air outside of the scan.
        label: 0 background, k nodule k of the scan, 255 ignore and outside of the scan; no voxels unless asked for.
        lung: 1 in the lungs; no voxels unless asked for.
        target: class of each crop.
        kind: kind of each crop (``data.sampling``).
        scan: index of each crop's scan.
    """

    hu: Int16[Tensor, "b 1 z y x"]
    label: UInt8[Tensor, "b 1 z2 y2 x2"]
    lung: UInt8[Tensor, "b 1 z2 y2 x2"]
    target: Int64[Tensor, " b"]
    kind: Int64[Tensor, " b"]
    scan: Int64[Tensor, " b"]

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device; from pinned memory without waiting."""
        return Batch(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))

    def pin(self) -> "Batch":
        """The batch in page-locked memory, from where copies to a GPU run beside the computation."""
        return Batch(*(getattr(self, f.name).pin_memory() for f in fields(self)))

    def __len__(self) -> int:
        return len(self.hu)


def cut_batch(scans: Sequence[Scan], crops: CropList, shape_zyx: Shape3, *, masks: bool = True) -> Batch:
    """Cut these crops.

    Args:
        scans: what ``crops.scan`` counts.
        crops: the crops.
        shape_zyx: size of every crop.
        masks: whether label and lung are wanted; without, they are of size (b, 1, 0, 0, 0).
    """
    n = len(crops)
    mask_shape = shape_zyx if masks else (0, 0, 0)
    hu = np.empty((n, 1, *shape_zyx), np.int16)
    label, lung = np.empty((n, 1, *mask_shape), np.uint8), np.empty((n, 1, *mask_shape), np.uint8)
    first = crops.center_zyx - np.asarray(shape_zyx) // 2
    for i, (s, start) in enumerate(zip(crops.scan.tolist(), first.tolist(), strict=True)):
        scan = scans[s]
        _copy_box(scan.hu(), start, hu[i, 0], AIR)
        if masks:
            _copy_box(scan.label(), start, label[i, 0], IGNORE)
            _copy_box(scan.lung(), start, lung[i, 0], 0)
    tensors = (hu, label, lung, crops.target, crops.kind, crops.scan)
    return Batch(*(torch.from_numpy(a) for a in tensors))


def _copy_box(array: np.ndarray, start: list[int], out: np.ndarray, fill: int) -> None:
    """Copy the box of ``out``'s size at ``start``; the same as ``ct.crops.cut_crops``, into memory that is there."""
    low = [max(a, 0) for a in start]
    high = [max(min(a + n, m), b) for a, n, m, b in zip(start, out.shape, array.shape, low, strict=True)]
    inside = tuple(slice(b - a, c - a) for a, b, c in zip(start, low, high, strict=True))
    if any(c - b < n for b, c, n in zip(low, high, out.shape, strict=True)):
        out.fill(fill)
    source, target = array[low[0] : high[0], low[1] : high[1], low[2] : high[2]], out[inside]
    if target.size:
        # A row as one element: NumPy copies it at once, in half the time that it takes voxel by voxel.
        row = np.dtype((np.void, target.shape[2] * target.itemsize))
        target.view(row)[..., 0] = source.view(row)[..., 0]


def batches(
    scans: Sequence[Scan],
    crops: CropList,
    shape_zyx: Shape3,
    batch_size: int,
    *,
    rank: int = 0,
    world: int = 1,
    ahead: int = 4,
    threads: int = 1,
    masks: bool = True,
    pin: bool = False,
    drop_last: bool = True,
) -> Iterator[Batch]:
    """Cut batch after batch in background threads, in order.

    Args:
        scans: what ``crops.scan`` counts.
        crops: the epoch, the same list in every process.
        shape_zyx: size of every crop.
        batch_size: crops per batch over all processes.
        rank: number of this process.
        world: number of processes; process r gets crops r, r + world, ... of every batch.
        ahead: batches cut before they are asked for; 0 cuts when asked, in the calling thread.
        threads: threads that cut.
        masks: whether label and lung are wanted.
        pin: put batches into page-locked memory.
        drop_last: leave out an incomplete last batch.

    Raises:
        UsageError: a batch that cannot be shared evenly.
    """
    if batch_size < 1 or batch_size % world:
        raise UsageError(f"a batch of {batch_size} crops cannot be shared evenly by {world} processes")
    end = len(crops) - len(crops) % batch_size if drop_last else len(crops)

    def cut(start: int) -> Batch:
        mine = crops.take(slice(start + rank, min(start + batch_size, end), world))
        batch = cut_batch(scans, mine, shape_zyx, masks=masks)
        return batch.pin() if pin else batch

    starts = range(0, end, batch_size)
    if ahead == 0:
        yield from map(cut, starts)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="carina-crops")
    try:
        waiting = deque(pool.submit(cut, start) for start in starts[:ahead])
        for start in [*starts[ahead:], *[None] * len(waiting)]:
            batch = waiting.popleft().result()
            if start is not None:
                waiting.append(pool.submit(cut, start))
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
