"""From a CT to what the networks see: the lung box on the analysis grid. Training and inference both come here.

Must not know files, networks or torch.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int16

from carina.ct.lungs import LungMask, find_lungs
from carina.ct.resample import resample
from carina.geometry import Geometry, Shape3, Vector3
from carina.volume import Volume


@dataclass(frozen=True)
class Preprocessing:
    """The constants of preprocessing; a model's card holds the ones that it was trained with.

    Attributes:
        spacing_zyx_mm: spacing of the analysis grid.
        clip_hu: lowest and highest HU that the networks distinguish, for ``hu.normalise``.
        margin_mm: how much of the scan around the lungs is kept, for the networks' field of view.
        crop_zyx: voxels of the crop around a candidate that the second network sees.
    """

    spacing_zyx_mm: Vector3 = (1.5, 1.0, 1.0)
    clip_hu: tuple[float, float] = (-1000.0, 400.0)
    margin_mm: float = 24.0
    crop_zyx: Shape3 = (32, 48, 48)


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """The lung box of a scan on the analysis grid.

    Attributes:
        hu: HU, rounded and unclipped.
        lung: the lungs on the same grid, not dilated.
        geometry: where the voxels lie in the patient; axes from feet to head, front to back, right to left.
        lungs: the mask as it was found, for other grids and dilations.
    """

    hu: Int16[np.ndarray, "z y x"]
    lung: Bool[np.ndarray, "z y x"]
    geometry: Geometry
    lungs: LungMask

    @property
    def litres(self) -> float:
        """Volume of the lungs."""
        return self.lungs.litres


def prepare_scan(volume: Volume, preprocessing: Preprocessing | None = None) -> PreparedScan:
    """Find the lungs and resample the box around them.

    Args:
        volume: a chest CT in any orientation.
        preprocessing: constants from the model's card; the package's own when None.

    Raises:
        NoLungsError: no plausible lungs.
    """
    return prepare_on(volume, find_lungs(volume), preprocessing or Preprocessing())


def prepare_on(volume: Volume, lungs: LungMask, preprocessing: Preprocessing) -> PreparedScan:
    """Resample the box around lungs that are known already, for a second network with a grid of its own."""
    box = lungs.box(preprocessing.spacing_zyx_mm, preprocessing.margin_mm)
    return PreparedScan(resample(volume, box), lungs.on(box), box, lungs)
