"""A set without splits: a folder for each class, as anomalib's `Folder` and most sets of classifiers have it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sage_ad.evaluation.datasets.common import (
    child,
    has_images,
    held_out,
    holds_images,
    is_image_name,
    is_label_folder_name,
    name_key,
    subfolders,
)
from sage_ad.evaluation.datasets.mvtec import SPLITS, MVTec, class_folders, masks_in
from sage_ad.evaluation.datasets.names import good_names
from sage_ad.evaluation.datasets.sample import Sample, Split

TEST_EVERY = 2
"""The set has no split: every second good image is for testing."""

MASK_FOLDERS = ("ground_truth", "groundtruth", "gt", "masks", "mask")


class ClassFolders(MVTec):
    """`<category>/<class>/*`, one class of good parts; masks in `ground_truth/<class>` or `masks/<class>` beside them."""

    format = "folders"
    layout = (
        "good/* and <defect>/* (or <category>/good/*, <category>/<defect>/*), masks in ground_truth/<defect>/<stem>.png"
    )

    @staticmethod
    def holds(folder: Path) -> bool:
        """Whether a folder is one category of this layout: at least one class of good parts among its folders."""
        if has_images(folder) or any(child(folder, name) for name in SPLITS):
            return False
        groups = [group for group in class_folders(folder) if holds_images(group)]
        return bool(good_names(group.name for group in groups))

    @staticmethod
    def _parts(folder: Path) -> Iterator[tuple[Split, Path]]:
        yield "test", folder

    def _report_unread(self, folder: Path) -> None:
        loose = [entry for entry in sorted(folder.iterdir()) if is_image_name(entry)]
        if loose:
            self.report(
                folder, f"{len(loose)} pictures lie in no class folder ({loose[0].name}, ...) and were not read"
            )
        for entry in subfolders(folder):
            if is_label_folder_name(entry.name) and name_key(entry.name) not in MASK_FOLDERS:
                self.report(entry, "this folder is called like one of masks or labels and was not read as parts")
        self.note_once(f"{folder.name} has no split, so every second good image is kept for testing.")

    def _records(self, category: str) -> Iterator[Sample]:
        from dataclasses import replace

        position = 0
        for sample in super()._records(category):
            if sample.anomalous is False:
                sample = replace(sample, split=held_out(position, TEST_EVERY))
                position += 1
            yield sample

    def _masks(self, folder: Path, part: Path, group: Path) -> dict[str, tuple[Path, ...]]:
        for name in MASK_FOLDERS:
            if place := child(folder, name):
                inside = child(place, group.name)
                if inside:
                    return masks_in(inside)
                if has_images(place) and group.name not in self._good[folder.resolve().name]:
                    stems = {name_key(path.stem) for path in self._images(group)}
                    return {stem: masks for stem, masks in masks_in(place).items() if stem in stems}
        return {}
