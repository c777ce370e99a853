"""MVTec AD and what shares its layout (MVTec LOCO, MPDD, converted VisA), with `index.csv` where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sage_ad.evaluation.datasets.common import (
    GOOD,
    GOOD_NAMES,
    InspectionDataset,
    MaskKind,
    Sample,
    Split,
    child,
    has_images,
    image_files,
    is_image_name,
    name_key,
    subfolders,
)
from sage_ad.evaluation.datasets.masks import is_box_like, load_mask
from sage_ad.evaluation.datasets.mvtec_index import IndexRow, find_index, read_index
from sage_ad.vlm.errors import InputError

MASKS_LOOKED_AT = 12
"""So many masks of a category are opened to tell drawn outlines from filled boxes, where no index says it."""


def is_category(folder: Path) -> bool:
    """Whether a folder is one category: pictures in a sub-folder of its `train` or `test`."""
    for split in ("train", "test", "validation"):
        part = child(folder, split)
        if part and any(has_images(entry) for entry in subfolders(part)):
            return True
    return False


def find_category_folders(root: Path) -> dict[str, Path]:
    """Category folders by name: the root itself, else those in it, else those one level further down."""
    if is_category(root):
        return {root.resolve().name: root}
    found = {folder.name: folder for folder in subfolders(root) if is_category(folder)}
    if found:
        return found
    deeper = [folder for group in subfolders(root) for folder in subfolders(group) if is_category(folder)]
    names = [folder.name for folder in deeper]
    return {
        folder.name if names.count(folder.name) == 1 else f"{folder.parent.name}/{folder.name}": folder
        for folder in deeper
    }


class MVTec(InspectionDataset):
    """`<category>/train/good`, `test/<defect>`, `ground_truth/<defect>/<stem>_mask.png` (LOCO: a folder of masks)."""

    format = "mvtec"
    layout = "<category>/train/good/*, <category>/test/<defect>/*, <category>/ground_truth/<defect>/<stem>_mask.png"

    @classmethod
    def recognises(cls, root: Path) -> bool:
        return root.is_dir() and bool(find_category_folders(root))

    def _find_categories(self) -> list[str]:
        self._folders = find_category_folders(self.root)
        self._kinds: dict[str, MaskKind | None] = {}
        self._index: dict[Path, IndexRow] = {}
        path = find_index(self.root)
        if path:
            self._index, faults = read_index(path, self.root)
            for fault in faults:
                self.report(path, fault)
        return sorted(self._folders)

    def _records(self, category: str) -> Iterator[Sample]:
        folder = self._folders[category]
        listed = {image: row for image, row in self._index.items() if image.is_relative_to(folder.resolve())}
        for split, part in self._parts(folder):
            for group in subfolders(part):
                masks = self._masks(folder, group.name)
                for image in image_files(group, self):
                    row = listed.pop(image.resolve(), None)
                    yield self._sample(category, split, group.name, image, masks.pop(name_key(image.stem), ()), row)
                for paths in masks.values():
                    self.report(paths[0], "this mask belongs to no image")
        for image in listed:
            self.report(image, "index.csv lists this image, but it is missing")

    @staticmethod
    def _parts(folder: Path) -> Iterator[tuple[Split, Path]]:
        splits: tuple[tuple[str, Split], ...] = (("train", "train"), ("validation", "train"), ("test", "test"))
        for name, split in splits:
            part = child(folder, name)
            if part:
                yield split, part

    def _masks(self, folder: Path, defect: str) -> dict[str, tuple[Path, ...]]:
        """Mask files by the stem of their image."""
        place = child(folder, "ground_truth", defect)
        if place is None:
            return {}
        masks: dict[str, tuple[Path, ...]] = {}
        for entry in sorted(place.iterdir()):
            if entry.is_dir():
                files = tuple(path for path in sorted(entry.iterdir()) if is_image_name(path))
                if files:
                    masks[name_key(entry.name)] = files
            elif is_image_name(entry):
                masks[name_key(entry.stem).removesuffix("_mask")] = (entry,)
        return masks

    def _sample(
        self, category: str, split: Split, group: str, image: Path, masks: tuple[Path, ...], row: IndexRow | None
    ) -> Sample:
        defect = GOOD if name_key(group) in GOOD_NAMES else group
        if row:
            defect = row.defect
            masks = (row.mask,) if row.mask else masks
        for mask in [mask for mask in masks if not mask.is_file()]:
            self.report(mask, "index.csv lists this mask, but it is missing")
            masks = tuple(path for path in masks if path != mask)
        reference = row.reference if row else None
        if reference and not reference.is_file():
            self.report(reference, "index.csv lists this reference, but it is missing")
            reference = None
        kind = (row.mask_kind if row and row.mask_kind else self._kind(category)) if masks else None
        return Sample(
            image=image,
            category=category,
            split=split,
            defect=defect,
            anomalous=defect != GOOD,
            masks=masks,
            mask_kind=kind,
            reference=reference,
            meta=row.meta if row else {},
            id=f"{category.rpartition('/')[2]}/{image.parent.parent.name}/{group}/{image.name}",
        )

    def _kind(self, category: str) -> MaskKind | None:
        """Whether a category's masks are outlines or filled boxes, told from a few of them and remembered."""
        if category not in self._kinds:
            self._kinds[category] = "box" if self._looks_boxed(self._folders[category]) else "pixel"
            if self._kinds[category] == "box":
                self.notes.append(f"The masks of {category} are filled boxes, so they give no pixel figures.")
        return self._kinds[category]

    @staticmethod
    def _looks_boxed(folder: Path) -> bool:
        truth = child(folder, "ground_truth")
        files = [path for path in sorted(truth.rglob("*")) if is_image_name(path)] if truth else []
        told = []
        for path in files[:: max(1, len(files) // MASKS_LOOKED_AT)][:MASKS_LOOKED_AT]:
            try:
                mask = load_mask(Sample(path, "", "test", masks=(path,)))
            except InputError:
                continue  # it is named when the mask itself is read
            told.append(is_box_like(mask) if mask is not None else None)
        known = [answer for answer in told if answer is not None]
        return bool(known) and all(known)
