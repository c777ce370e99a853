"""What sets of boxes (YOLO, COCO) share: classes of good parts are no defects, and boxes give no pixel truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sage_ad.evaluation.datasets.common import GOOD, InspectionDataset, Sample, Split
from sage_ad.evaluation.datasets.names import is_good_name

Box = tuple[float, float, float, float]
TESTS = ("test", "testing", "eval")
VALIDATIONS = ("val", "valid", "validation")


def splits_of(names: Iterable[str]) -> dict[str, Split]:
    """What each split is used for: validation images train where there are test images, and test where there are none."""
    names = list(names)
    tested = any(name.lower() in TESTS for name in names)
    trained = any(name.lower() not in TESTS for name in names)
    return {
        name: "test"
        if name.lower() in TESTS or (not tested and name.lower() in VALIDATIONS) or not trained
        else "train"
        for name in names
    }


class DetectionDataset(InspectionDataset):
    """Base of the sets of boxes: one category, named like the set."""

    def _tell_classes(self, classes: Sequence[str]) -> None:
        """Says which classes are taken for defects."""
        defects = [name for name in classes if not is_good_name(name)]
        self.notes.append(
            f"The classes {', '.join(defects)} are taken for defects; images without a box of them are taken for good."
        )

    def _boxed(
        self, image: Path, category: str, split: Split, key: str, found: Sequence[tuple[str, Box]], meta: dict[str, Any]
    ) -> Sample:
        """The record of an image with its named boxes."""
        kept = [(name, box) for name, box in found if not is_good_name(name)]
        names = [name for name, _ in kept]
        return Sample(
            image=image,
            category=category,
            split=split,
            defect=(names[0] if len(set(names)) == 1 else "mixed") if kept else GOOD,
            anomalous=bool(kept),
            mask_kind="box" if kept else None,
            boxes=tuple(box for _, box in kept),
            meta={**meta, "types": names},
            id=f"{category}/{key}",
        )
