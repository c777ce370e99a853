"""VisA as it is published: `<category>/Data/Images/{Normal,Anomaly}`, `image_anno.csv` and `split_csv/1cls.csv`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from sage_ad.evaluation.datasets.common import (
    InspectionDataset,
    child,
    held_out,
    image_files,
    name_key,
    subfolders,
)
from sage_ad.evaluation.datasets.sample import Sample, Split, marked_sample

TEST_EVERY = 10
"""Without a split file, one good image in so many is for testing (the published split is close to that)."""


class VisA(InspectionDataset):
    """Masks hold class numbers; the split file wins over the folders, and `image_anno.csv` names the defects."""

    format = "visa"
    layout = "<category>/Data/Images/{Normal,Anomaly}/*, Data/Masks/Anomaly/*.png, image_anno.csv; split_csv/1cls.csv"

    @classmethod
    def recognises(cls, root: Path) -> bool:
        return bool(cls._category_folders(root))

    @staticmethod
    def _category_folders(root: Path) -> dict[str, Path]:
        candidates = [root, *subfolders(root)]
        found = {f.resolve().name: f for f in candidates if child(f, "Data", "Images")}
        return {root.resolve().name: root} if child(root, "Data", "Images") else found

    def _find_categories(self) -> list[str]:
        self._folders = self._category_folders(self.root)
        self._base = next(iter(self._folders.values())).parent if self._folders else self.root
        self._split = self._read_split()
        return sorted(self._folders)

    def _read_split(self) -> dict[str, Split]:
        """Split by the image's path below the base, from split_csv/1cls.csv."""
        folder = child(self._base, "split_csv")
        path = folder / "1cls.csv" if folder else None
        if path is None or not path.is_file():
            self.notes.append(f"There is no split_csv/1cls.csv, so one good image in {TEST_EVERY} is kept for testing.")
            return {}
        split: dict[str, Split] = {}
        with path.open(newline="", encoding="utf-8-sig") as stream:
            for number, row in enumerate(csv.DictReader(stream), start=2):
                if not row.get("image") or row.get("split") not in ("train", "test"):
                    self.report(path, f"line {number} has no image or no split")
                    continue
                split[name_key(row["image"])] = "train" if row["split"] == "train" else "test"
        return split

    def _records(self, category: str) -> Iterator[Sample]:
        folder = self._folders[category]
        defects = self._defects(folder)
        masks = self._masks(folder)
        unseen = {image for image in self._split if image.startswith(name_key(folder.resolve().name) + "/")}
        for group in ("Normal", "Anomaly"):
            place = child(folder, "Data", "Images", group)
            for position, image in enumerate(image_files(place, self) if place else []):
                key = name_key(self._relative(folder, image))
                unseen.discard(key)
                yield self._sample(category, group, image, self._place(key, group, position), defects, masks)
        for missing in sorted(unseen):
            self.report(missing, "the split file lists this image, but it is missing")

    def _place(self, key: str, group: str, position: int) -> Split:
        if key in self._split:
            return self._split[key]
        if self._split:
            self.report(key, "the split file does not list this image; it is taken for testing")
        elif group == "Normal":
            return held_out(position, TEST_EVERY)
        return "test"

    @staticmethod
    def _relative(folder: Path, image: Path) -> str:
        return f"{folder.resolve().name}/{image.relative_to(folder).as_posix()}"

    def _sample(
        self, category: str, group: str, image: Path, split: Split, defects: dict[str, str], masks: dict[str, Path]
    ) -> Sample:
        anomalous = group == "Anomaly"
        mask = masks.get(name_key(image.stem)) if anomalous else None
        if anomalous and mask is None:
            self.report(image, "this anomalous image has no mask")
        defect = defects.get(name_key(image.name), "defect") if anomalous else None
        return marked_sample(image, category, split, f"{category}/{group}/{image.name}", defect=defect, mask=mask)

    @staticmethod
    def _masks(folder: Path) -> dict[str, Path]:
        place = child(folder, "Data", "Masks", "Anomaly")
        return {name_key(path.stem): path for path in image_files(place)} if place else {}

    def _defects(self, folder: Path) -> dict[str, str]:
        """Defect names by file name, from image_anno.csv (several are separated by commas)."""
        path = folder / "image_anno.csv"
        if not path.is_file():
            return {}
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [row for row in csv.DictReader(stream) if row.get("image") and row.get("label")]
        return {name_key(Path(row["image"]).name): row["label"].strip() for row in rows}
