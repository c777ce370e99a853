"""MVTec AD 2: `test_public` with its masks inside; `test_private` and `test_private_mixed` have no labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sage_ad.evaluation.datasets.common import child, holds_images, image_files, subfolders
from sage_ad.evaluation.datasets.mvtec import MVTec, class_folders, masks_in
from sage_ad.evaluation.datasets.sample import Split

PUBLIC, PRIVATE = "test_public", ("test_private", "test_private_mixed")


class MVTecAD2(MVTec):
    """`<category>/train/good`, `validation/good`, `test_public/{good,bad}`, `test_public/ground_truth/bad/*_mask.png`."""

    format = "ad2"
    layout = (
        "<category>/train/good/*, test_public/good/*, test_public/bad/*, test_public/ground_truth/bad/<stem>_mask.png"
    )

    @staticmethod
    def holds(folder: Path) -> bool:
        """Whether a folder is one category of this layout."""
        part = child(folder, PUBLIC)
        return part is not None and any(holds_images(entry) for entry in class_folders(part))

    @staticmethod
    def _parts(folder: Path) -> Iterator[tuple[Split, Path]]:
        splits: tuple[tuple[str, Split], ...] = (("train", "train"), ("validation", "train"), (PUBLIC, "test"))
        for name, split in splits:
            if part := child(folder, name):
                yield split, part

    def _masks(self, folder: Path, part: Path, group: Path) -> dict[str, tuple[Path, ...]]:
        place = child(part, "ground_truth", group.name)
        return {} if place is None else masks_in(place)

    def _report_unread(self, folder: Path) -> None:
        """Says how many pictures have no label; they are no fault of the set."""
        for entry in subfolders(folder):
            if entry.name in PRIVATE and (count := len(image_files(entry))):
                self.note_once(
                    f"{folder.name}: the {count} pictures of {entry.name} have no published label and are left out."
                )
