"""MVTec AD and what shares its layout (MVTec LOCO, MPDD, converted VisA), with `index.csv` where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from sage_ad.evaluation.datasets.common import (
    InspectionDataset,
    child,
    holds_images,
    image_files,
    is_image_name,
    is_label_folder_name,
    name_key,
    subfolders,
)
from sage_ad.evaluation.datasets.masks import is_box_like, is_everything, load_mask
from sage_ad.evaluation.datasets.mvtec_index import IndexRow, find_index, read_index
from sage_ad.evaluation.datasets.names import good_names, is_good_name
from sage_ad.evaluation.datasets.sample import GOOD, MaskKind, Sample, Split
from sage_ad.vlm.errors import InputError

MASKS_LOOKED_AT = 12
"""So many masks of a category are opened to tell drawn outlines from filled boxes, where no index says it."""


SPLITS = ("train", "validation", "valid", "val", "test", "testing", "eval")
"""Folders of a category that hold class folders; the last three test, the validation ones train where one of those is there."""

_TESTS = ("test", "testing", "eval")


def class_folders(part: Path) -> list[Path]:
    """Folders of classes in a split: those that hold pictures or nothing, but no masks."""
    return [entry for entry in subfolders(part) if not is_label_folder_name(entry.name)]


def is_category(folder: Path) -> bool:
    """Whether a folder is one category: pictures in a sub-folder of its `train`, `test` or validation."""
    parts = (child(folder, split) for split in SPLITS)
    return any(holds_images(entry) for part in parts if part for entry in class_folders(part))


def find_category_folders(root: Path, is_category: Callable[[Path], bool]) -> dict[str, Path]:
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


def masks_in(place: Path, prefix: str = "") -> dict[str, tuple[Path, ...]]:
    """Masks below a folder by the path of their image; a folder of nothing but pictures is one image's (LOCO)."""
    masks: dict[str, tuple[Path, ...]] = {}
    for entry in sorted(place.iterdir()):
        if entry.is_dir():
            files = tuple(path for path in sorted(entry.iterdir()) if is_image_name(path))
            if files and not any(path.stem.lower().endswith("_mask") for path in files):
                masks[name_key(prefix + entry.name)] = files
            else:
                masks |= masks_in(entry, f"{prefix}{entry.name}/")
        elif is_image_name(entry):
            masks[name_key(prefix + entry.stem).removesuffix("_mask")] = (entry,)
    return masks


class MVTec(InspectionDataset):
    """`<category>/train/good`, `test/<defect>`, `ground_truth/<defect>/<stem>_mask.png` (LOCO: a folder of masks)."""

    format = "mvtec"
    layout = "<category>/train/good/*, <category>/test/<defect>/*, <category>/ground_truth/<defect>/<stem>_mask.png"

    @classmethod
    def recognises(cls, root: Path) -> bool:
        return root.is_dir() and bool(find_category_folders(root, cls.holds))

    @staticmethod
    def holds(folder: Path) -> bool:
        """Whether a folder is one category of this layout."""
        return is_category(folder)

    def _find_categories(self) -> list[str]:
        self._folders = find_category_folders(self.root, type(self).holds)
        self._good: dict[str, set[str]] = {}
        self._kinds: dict[str, MaskKind | None] = {}
        self._index: dict[Path, IndexRow] = {}
        path = find_index(self.root)
        if path:
            self._index, faults = read_index(path, self.root)
            for fault in faults:
                self.report(path, fault)
        self._report_strangers()
        return sorted(self._folders)

    def _report_strangers(self) -> None:
        """Names folders with pictures beside the categories, which would otherwise be passed over."""
        known = set(self._folders.values())
        for place in {folder.parent for folder in known} - {self.root.parent}:
            for folder in subfolders(place):
                if folder not in known and not is_label_folder_name(folder.name) and holds_images(folder):
                    self.report(folder, "this folder holds pictures, but no category in this layout; it was not read")

    def _check_category(self, category: str) -> None:
        """Finds the classes of good parts by their names.

        Raises:
            InputError: there is none, so that good parts would be taken for defective ones.
        """
        folder = self._folders[category]
        names = list(dict.fromkeys(group.name for _, part in self._parts(folder) for group in class_folders(part)))
        self._good[category] = good_names(names)
        doubtful = [name for name in self._good[category] if not is_good_name(name)]
        self.notes += [f"{category}: the folder {name!r} is taken for that of the good parts." for name in doubtful]
        labelled = any(image.is_relative_to(folder.resolve()) for image in self._index)
        if self._good[category] or labelled:
            return
        if len(names) == 1 and child(folder, "train") is None:
            self.notes.append(
                f"{category} has no folder of good parts; its only class {names[0]!r} is taken for a defect."
            )
        elif names:
            raise InputError(
                f"{folder} has no folder of good parts, as far as the names say: {', '.join(names)}; call the folder of good "
                f"parts 'good' (if there are none, make an empty folder train/good)."
            )

    def _records(self, category: str) -> Iterator[Sample]:
        folder = self._folders[category]
        listed = {image: row for image, row in self._index.items() if image.is_relative_to(folder.resolve())}
        self._report_unread(folder)
        for split, part in self._parts(folder):
            for group in class_folders(part):
                masks = self._masks(folder, part, group)
                for image in self._images(group):
                    row = listed.pop(image.resolve(), None)
                    found = masks.pop(name_key(image.relative_to(group).with_suffix("").as_posix()), ())
                    yield self._sample(category, split, part, group, image, found, row)
                for paths in masks.values():
                    self.report(paths[0], "this mask belongs to no image")
        for image in listed:
            self.report(image, "index.csv lists this image, but it is missing")

    def _report_unread(self, folder: Path) -> None:
        """Names pictures of a category that lie in no class folder of a split."""
        for place in (folder, *(part for _, part in self._parts(folder))):
            loose = [entry for entry in sorted(place.iterdir()) if is_image_name(entry)]
            if loose:
                self.report(
                    place, f"{len(loose)} pictures lie in no class folder ({loose[0].name}, ...) and were not read"
                )
        parts = {part for _, part in self._parts(folder)}
        for entry in subfolders(folder):
            if entry not in parts and not is_label_folder_name(entry.name) and holds_images(entry):
                self.report(entry, f"this folder is none of {', '.join(SPLITS)}; its pictures were not read")

    @staticmethod
    def _parts(folder: Path) -> Iterator[tuple[Split, Path]]:
        """Splits of a category; validation images train where there are test images, and test where there are none."""
        found = {name: part for name in SPLITS if (part := child(folder, name))}
        tested = any(name in _TESTS for name in found)
        for name, part in found.items():
            trains = name == "train" or (tested and name not in _TESTS)
            yield "train" if trains else "test", part

    def _images(self, group: Path) -> list[Path]:
        """Pictures of a class."""
        return image_files(group, self)

    def _masks(self, folder: Path, part: Path, group: Path) -> dict[str, tuple[Path, ...]]:
        """Mask files by the path of their image in its class folder, without its ending."""
        place = child(folder, "ground_truth", group.name)
        return {} if place is None else masks_in(place)

    def _sample(
        self,
        category: str,
        split: Split,
        part: Path,
        group: Path,
        image: Path,
        masks: tuple[Path, ...],
        row: IndexRow | None,
    ) -> Sample:
        defect = GOOD if group.name in self._good[category] else group.name
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
            id=f"{category.rpartition('/')[2]}/{part.name}/{group.name}/{image.relative_to(group).as_posix()}",
        )

    def _kind(self, category: str) -> MaskKind | None:
        """Whether a category's masks are outlines or filled boxes, judged by a few of them and remembered."""
        if category not in self._kinds:
            self._kinds[category] = "box" if self._looks_boxed(self._folders[category]) else "pixel"
            if self._kinds[category] == "box":
                self.notes.append(f"The masks of {category} are filled boxes, so they give no pixel figures.")
        return self._kinds[category]

    @staticmethod
    def _looks_boxed(folder: Path) -> bool:
        ground = child(folder, "ground_truth")
        files = [path for path in sorted(ground.rglob("*")) if is_image_name(path)] if ground else []
        answers = []
        for path in files[:: max(1, len(files) // MASKS_LOOKED_AT)][:MASKS_LOOKED_AT]:
            try:
                mask = load_mask(Sample(path, "", "test", masks=(path,)))
            except InputError:
                continue  # it is named when the mask itself is read
            answers.append(is_box_like(mask) if mask is not None and not is_everything(mask) else None)
        known = [answer for answer in answers if answer is not None]
        return bool(known) and all(known)
