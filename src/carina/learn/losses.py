"""Losses for masks and classes. All take logits and return one number; none knows files or tasks."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_EPSILON = 1.0


def dice_loss(
    probability: Float[Tensor, "b *space"], truth: Float[Tensor, "b *space"], weight: Float[Tensor, "b *space"]
) -> Float[Tensor, " b"]:
    """One minus the soft Dice coefficient of each sample (Milletari et al., arXiv:1606.04797).

    Args:
        probability: in [0, 1].
        truth: 0 or 1.
        weight: of each voxel; 0 leaves it out.

    Returns:
        In [0, 1]; an empty truth with an empty answer gives 0.
    """
    together = (weight * probability * truth).flatten(1).sum(1)
    apart = (weight * (probability + truth)).flatten(1).sum(1)
    return 1 - (2 * together + _EPSILON) / (apart + _EPSILON)


def missed_dice_loss(
    logits: Float[Tensor, "b *space"],
    truth: Float[Tensor, "b *space"],
    weight: Float[Tensor, "b *space"],
    *,
    missed: float = 8.0,
) -> Float[Tensor, ""]:
    """Soft Dice with extra weight on missed voxels.

    The extra term is the Dice loss of the answer inside the truth, which false positives do not touch.

    Args:
        logits: of the mask.
        truth: 0 or 1.
        weight: of each voxel; 0 leaves it out.
        missed: weight of the extra term.
    """
    probability = logits.float().sigmoid()
    whole = dice_loss(probability, truth, weight).mean()
    inside = dice_loss(probability * truth, truth, weight).mean()
    return whole + missed * inside


def marking_loss(
    logits: Float[Tensor, "b *space"],
    truth: Float[Tensor, "b *space"],
    weight: Float[Tensor, "b *space"],
    *,
    negatives: float = 12.0,
) -> Float[Tensor, ""]:
    """Mark rare small things: Dice of the whole batch, and cross entropy of both classes.

    The cross entropy of positive voxels is their mean by weight. That of negative ones is their sum over the number of
    all voxels: where much is to be ignored it counts less.

    Dice over the batch, not per sample, and enough weight on the negative voxels keep training out of the state in
    which all tissue in the lungs is called one half.

    Args:
        logits: of the mask.
        truth: 0 or 1.
        weight: of each voxel, e.g. more for small nodules, little outside the lungs, 0 to ignore.
        negatives: weight of the negative voxels' part, against 1 for that of the positive ones.
    """
    logits = logits.float()
    entropy = weight * functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    counted = weight.clamp(max=1.0)
    dice = dice_loss(logits.sigmoid().flatten()[None], truth.flatten()[None], counted.flatten()[None]).mean()
    positive = (entropy * truth).sum() / (weight * truth).sum().clamp(min=1e-6)
    return dice + positive + negatives * (entropy * (1 - truth)).mean()
