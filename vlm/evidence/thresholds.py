"""What score a good picture may have, judged by the references alone.

One reference is compared with itself after a small turn, shift and change of light, which is as much as two good parts
of a product are certain to differ. Several references are compared with one another, each against the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

DISTURBANCES = ((2.0, (4, -3), 1.06, 1.05), (-2.0, (-3, 4), 0.94, 0.95))
"""Turn in degrees, shift in pixels (of 320), brightness and contrast of the disturbed copies."""

ONE_REFERENCE = (0.40, 0.42)
"""Threshold from one reference: factor and offset on the mean score of its disturbed copies, for the embedded encoder.

One reference tells little of how much good parts differ, so the line is flatter than the factor below: a reference
that is hardly like its own disturbed copy is not followed all the way."""

ONE_REFERENCE_PLAIN = (1.3, 0.0)
"""The same for the baseline and for other encoders, whose distances have another scale."""

SPREADS = 0.75
"""Threshold from several references: how many spreads above the mean score of each against the rest."""

RELATIVE_SPREAD = 0.10
"""Scatter of the scores of good pictures as a share of their mean (mean over products of the *dev* group)."""


def disturbed(
    image: Image.Image, turn: float, shift: tuple[int, int], brightness: float, contrast: float
) -> Image.Image:
    """The picture turned, shifted and lit a little differently, cut so that no empty corner shows."""
    from PIL import Image, ImageEnhance

    scale = max(image.size) / 320
    moved = image.rotate(
        turn, resample=Image.Resampling.BICUBIC, translate=(round(shift[0] * scale), round(shift[1] * scale))
    )
    margin = (int(image.width * 0.05), int(image.height * 0.05))
    moved = moved.crop((*margin, image.width - margin[0], image.height - margin[1]))
    moved = moved.resize(image.size, Image.Resampling.BICUBIC)
    return ImageEnhance.Contrast(ImageEnhance.Brightness(moved).enhance(brightness)).enhance(contrast)


def threshold_of_one(scores: list[float], *, tuned: bool) -> tuple[float, float, str]:
    """Threshold, spread and reason from the scores of the disturbed copies of one reference.

    `tuned` says that the distances have the scale of the embedded encoder under the method "sage".
    """
    factor, offset = ONE_REFERENCE if tuned else ONE_REFERENCE_PLAIN
    level = sum(scores) / len(scores)
    threshold = factor * level + offset
    reason = (
        f"The reference scores {level:.3f} against itself after a small turn, shift and change of light; "
        f"a good part may score up to {threshold:.3f}."
    )
    return threshold, RELATIVE_SPREAD * threshold, reason


def threshold_of_several(scores: list[float]) -> tuple[float, float, str]:
    """Threshold, spread and reason from the scores of each reference against the others."""
    count = len(scores)
    level = sum(scores) / count
    # A few references tell their mean better than their scatter, so the usual scatter of products stands beside it.
    own = (sum((score - level) ** 2 for score in scores) / (count - 1)) ** 0.5
    usual = RELATIVE_SPREAD * level
    spread = ((count - 1) * own + 4 * usual) / (count + 3)
    threshold = level + SPREADS * spread
    reason = (
        f"Each of the {count} references scores {level:.3f} on average against the others; "
        f"a good part may score up to {threshold:.3f}."
    )
    return threshold, spread, reason
