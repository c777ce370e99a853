"""What sets of boxes (YOLO, COCO, DeepPCB) share: classes of good parts are no defects, and boxes give no pixel masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sage_ad.evaluation.datasets.common import InspectionDataset
from sage_ad.evaluation.datasets.names import is_good_name
from sage_ad.evaluation.datasets.sample import GOOD, Sample, Split

Box = tuple[float, float, float, float]
TESTS = ("test", "testing", "eval")
VALIDATIONS = ("val", "valid", "validation")


def splits_of(names: Iterable[str]) -> dict[str, Split]:
    """What each split is used for: validation images train where there are test images, and test where there are none.

    A split of another name trains beside `train` and `test`; a set that has neither is all for testing.
    """
    plain = {name: name.lower().rstrip("0123456789") for name in names}
    tested = any(name in TESTS for name in plain.values())
    named = tested or "train" in plain.values()
    uses: dict[str, Split] = {}
    for name, word in plain.items():
        tests = word in TESTS or (word in VALIDATIONS and not tested) or not (named or word in VALIDATIONS)
        uses[name] = "test" if tests else "train"
    return uses


class DetectionDataset(InspectionDataset):
    """Base of the sets of boxes: one category."""

    def _tell_classes(self, classes: Sequence[str]) -> None:
        """Says which classes are taken for defects."""
        defects = [name for name in classes if not is_good_name(name)]
        self.notes.append(
            f"The classes {', '.join(defects)} are taken for defects; images without a box of them are taken for good."
        )

    def _boxed(
        self,
        image: Path,
        category: str,
        split: Split,
        key: str,
        found: Sequence[tuple[str, Box]],
        reference: Path | None = None,
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
            reference=reference,
            meta={"types": names},
            id=f"{category}/{key}",
        )
