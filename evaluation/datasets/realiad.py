"""Real-IAD: a JSON file a product beside (or above) the folders of its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sage_ad.evaluation.datasets.common import InspectionDataset, json_value, subfolders
from sage_ad.evaluation.datasets.records import text_of
from sage_ad.evaluation.datasets.sample import Sample, Split, marked_sample

DEFECTS = {
    "AK": "pit",
    "BX": "deformation",
    "CH": "abrasion",
    "HS": "scratch",
    "PS": "damage",
    "QS": "missing parts",
    "YW": "foreign objects",
    "ZW": "contamination",
}
"""The set's abbreviations of its kinds of defect."""


def _files(root: Path) -> list[Path]:
    folders = [root, *(folder for folder in subfolders(root) if "json" in folder.name.lower())]
    return sorted(path for folder in folders for path in folder.glob("*.json"))


def _is_one(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("meta"), dict)
        and isinstance(value.get("train"), list)
        and isinstance(value.get("test"), list)
    )


class RealIAD(InspectionDataset):
    """`<product>.json`: meta (normal_class, prefix), train and test lists of image_path, mask_path and anomaly_class."""

    format = "realiad"
    layout = (
        "<product>.json (or realiad_jsons/<product>.json) with meta, train and test; <product>/OK/..., <product>/NG/..."
    )

    @classmethod
    def recognises(cls, root: Path) -> bool:
        return root.is_dir() and any(_is_one(json_value(path, ("meta", "train", "test"))) for path in _files(root))

    def _find_categories(self) -> list[str]:
        self._sets: dict[str, dict[str, Any]] = {}
        for path in _files(self.root):
            value = json_value(path, ("meta", "train", "test"))
            if _is_one(value):
                self._sets[path.stem] = value
            else:
                self.report(path, "this file is no list of Real-IAD (meta, train, test); it was not read")
        return sorted(self._sets)

    def _records(self, category: str) -> Iterator[Sample]:
        value = self._sets[category]
        meta = value["meta"]
        normal, prefix = str(meta.get("normal_class", "OK")), str(meta.get("prefix", f"{category}/"))
        splits: tuple[Split, Split] = ("train", "test")
        for split in splits:
            for number, record in enumerate(value[split], start=1):
                name = text_of(record, "image_path") if isinstance(record, dict) else ""
                if not name:
                    self.report(f"{category}.json", f"{split} record {number} names no image_path")
                    continue
                kind = text_of(record, "anomaly_class") or normal
                anomalous = kind.casefold() != normal.casefold()
                mask = self._find(prefix, text_of(record, "mask_path")) if text_of(record, "mask_path") else None
                if mask is not None and not mask.is_file():
                    self.report(mask, "this mask is missing")
                    mask = None
                defect = DEFECTS.get(kind, kind) if anomalous else None
                yield marked_sample(
                    self._find(prefix, name), category, split, f"{category}/{name}",
                    defect=defect, mask=mask if anomalous else None,
                )  # fmt: skip

    def _find(self, prefix: str, name: str) -> Path:
        """Where a picture lies: below the root or one of its folders, with the product's folder in front."""
        inside = Path(prefix.strip("/")) / name
        for base in (self.root, *subfolders(self.root)):
            if (base / inside).is_file():
                return base / inside
        return self.root / inside
