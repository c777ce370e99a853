"""The record of an image and of what is wrong with one: the shapes that all readers, masks and reports share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sage_ad.evaluation.questions import GoldQuestion

Split = Literal["train", "test"]
MaskKind = Literal["pixel", "box"]
GOOD = "good"


@dataclass(frozen=True)
class Sample:
    """One image with everything that its set says about it.

    Attributes:
        image: its file.
        category: the product, as the set names it.
        split: "train" (may serve as reference or for calibration) or "test".
        defect: the set's name of the defect, "good" for a good part.
        anomalous: the label; None where a set has questions but no label.
        masks: files whose union marks the defect.
        mask_kind: "pixel", "box" (filled boxes: no pixel masks), or None without masks and boxes.
        reference: its own normal image (an aligned template, the same fabric), to be used instead of a random one.
        boxes: annotated boxes (x0, y0, x1, y1) in pixels of the image, x1 and y1 exclusive.
        meta: whatever else the set says.
        questions: the set's own questions with their gold answers, for sets that have them.
        id: name that stays the same wherever the set lies.
    """

    image: Path
    category: str
    split: Split
    defect: str = GOOD
    anomalous: bool | None = False
    masks: tuple[Path, ...] = ()
    mask_kind: MaskKind | None = None
    reference: Path | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    meta: dict[str, Any] = field(default_factory=dict, hash=False)
    questions: tuple[GoldQuestion, ...] = ()
    id: str = ""


def marked_sample(
    image: Path, category: str, split: Split, identity: str, *,
    defect: str | None, mask: Path | None = None, kind: MaskKind = "pixel",
) -> Sample:  # fmt: skip
    """The record of an image that at most one mask marks; `defect` is None for a good part."""
    return Sample(
        image=image,
        category=category,
        split=split,
        defect=defect or GOOD,
        anomalous=defect is not None,
        masks=(mask,) if mask else (),
        mask_kind=kind if mask else None,
        id=identity,
    )


@dataclass(frozen=True)
class Problem:
    """A record that could not be read, or only in part, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"
