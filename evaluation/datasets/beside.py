"""Sets with the mask of each image beside it: KolektorSDD and KolektorSDD2 (`_label`, `_GT`), DAGM (`Label/*_label.PNG`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sage_ad.evaluation.datasets.common import (
    InspectionDataset,
    child,
    has_images,
    held_out,
    image_files,
    is_image_name,
    name_key,
    subfolders,
)
from sage_ad.evaluation.datasets.masks import load_mask
from sage_ad.evaluation.datasets.sample import Sample, Split, marked_sample
from sage_ad.vlm.errors import InputError

TEST_EVERY = 2
_MASK = re.compile(r"(?P<stem>.+)_(gt|label)$", re.IGNORECASE)


def _pairs(folder: Path) -> tuple[list[Path], dict[str, Path]]:
    """Images directly in a folder, and its masks by the stem of their image."""
    files = [path for path in sorted(folder.iterdir()) if is_image_name(path)]
    masks = {name_key(found["stem"]): path for path in files if (found := _MASK.match(path.stem))}
    return [path for path in files if path not in masks.values()], masks


class Kolektor(InspectionDataset):
    """`train/10000.png` with `train/10000_GT.png`; or `kos01/Part0.jpg` with `kos01/Part0_label.bmp`. Black: a good part."""

    format = "kolektor"
    layout = (
        "train/<n>.png and train/<n>_GT.png, test/... (KolektorSDD2), or <item>/PartN.jpg and <item>/PartN_label.bmp"
    )

    @classmethod
    def recognises(cls, root: Path) -> bool:
        return bool(cls._folders_of(root))

    @staticmethod
    def _folders_of(root: Path) -> list[Path]:
        return [folder for folder in subfolders(root) if has_images(folder) and _has_pair(folder)]

    def _find_categories(self) -> list[str]:
        self._folders = self._folders_of(self.root)
        for folder in subfolders(self.root):
            if folder not in self._folders and has_images(folder):
                self.report(folder, "this folder holds pictures without masks beside them; it was not read")
        self._marked: dict[Path, bool] = {}
        return [self.root.resolve().name] if self._folders else []

    def _records(self, category: str) -> Iterator[Sample]:
        splits: dict[str, Split] = {"train": "train", "test": "test"}
        own = any(name_key(folder.name) in splits for folder in self._folders)
        if not own:
            self.note_once(f"{category} has no split, so every second good image is kept for testing.")
        position = 0
        for folder in self._folders:
            images, masks = _pairs(folder)
            for image in images:
                mask = masks.pop(name_key(image.stem), None)
                if mask is None:
                    self.report(image, "the mask of this image is missing, so its label is unknown; it is left out")
                    continue
                try:
                    anomalous = self._is_marked(mask)
                except InputError as error:
                    self.report(image, str(error))
                    continue
                split = splits.get(name_key(folder.name), "test" if anomalous else held_out(position, TEST_EVERY))
                position += not anomalous
                identity = f"{category}/{folder.name}/{image.name}"
                yield marked_sample(
                    image, category, split, identity,
                    defect="defect" if anomalous else None, mask=mask if anomalous else None,
                )  # fmt: skip
            for mask in masks.values():
                self.report(mask, "this mask belongs to no image")

    def _is_marked(self, mask: Path) -> bool:
        if mask not in self._marked:
            found = load_mask(Sample(mask, "", "test", masks=(mask,)))
            self._marked[mask] = found is not None and bool(found.any())
        return self._marked[mask]


def _has_pair(folder: Path) -> bool:
    images, masks = _pairs(folder)
    return any(name_key(image.stem) in masks for image in images)


class DAGM(InspectionDataset):
    """`Class1/Train/0576.PNG`, `Class1/Train/Label/0576_label.PNG`; images without a label mask are good."""

    format = "dagm"
    layout = "<class>/Train/<n>.PNG, <class>/Train/Label/<n>_label.PNG, <class>/Test/..."

    @classmethod
    def recognises(cls, root: Path) -> bool:
        return bool(cls._classes(root))

    @staticmethod
    def _classes(root: Path) -> dict[str, Path]:
        def holds(folder: Path) -> bool:
            parts = (child(folder, "train"), child(folder, "test"))
            return any(part and has_images(part) and child(part, "label") for part in parts)

        if holds(root):
            return {root.resolve().name: root}
        deeper = [folder for group in subfolders(root) for folder in [group, *subfolders(group)]]
        return {folder.name: folder for folder in deeper if holds(folder)}

    def _find_categories(self) -> list[str]:
        self._folders = self._classes(self.root)
        if self._folders:
            self.notes.append("DAGM marks defects with rough ellipses, so they give no pixel figures.")
        return sorted(self._folders)

    def _records(self, category: str) -> Iterator[Sample]:
        splits: tuple[tuple[str, Split], ...] = (("train", "train"), ("test", "test"))
        for name, split in splits:
            part = child(self._folders[category], name)
            if part is None or not has_images(part):
                self.report(self._folders[category] / name.title(), "this split is missing or holds no picture")
                continue
            ground = child(part, "label")
            masks = {}
            for path in image_files(ground) if ground else []:
                found = _MASK.match(path.stem)
                masks[name_key(found["stem"] if found else path.stem)] = path
            if ground is None:
                self.report(part, "this split has no folder Label, so its labels are unknown; it was not read")
                continue
            for image in (path for path in sorted(part.iterdir()) if is_image_name(path)):
                mask = masks.pop(name_key(image.stem), None)
                identity = f"{category}/{part.name}/{image.name}"
                yield marked_sample(
                    image, category, split, identity, defect="defect" if mask else None, mask=mask, kind="box"
                )
            for mask in masks.values():
                self.report(mask, "this mask belongs to no image")
