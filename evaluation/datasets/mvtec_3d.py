"""MVTec 3D-AD (and Eyecandies in its form): the colour pictures; heights are left out and said."""

from __future__ import annotations

from pathlib import Path

from sage_ad.evaluation.datasets.common import child, has_images, image_files
from sage_ad.evaluation.datasets.mvtec import SPLITS, MVTec, class_folders, masks_in


class MVTec3D(MVTec):
    """`<category>/<split>/<class>/rgb/*.png` with `gt/*.png` and `xyz/*.tiff` beside `rgb`."""

    format = "mvtec3d"
    layout = "<category>/train/good/rgb/*, <category>/test/<defect>/rgb/*, <category>/test/<defect>/gt/<stem>.png"

    @staticmethod
    def holds(folder: Path) -> bool:
        """Whether a folder is one category of this layout."""
        parts = [part for name in SPLITS if (part := child(folder, name))]
        places = [place for part in parts for group in class_folders(part) if (place := child(group, "rgb"))]
        return any(map(has_images, places))

    def _images(self, group: Path) -> list[Path]:
        if child(group, "xyz"):
            self.note_once("The height maps (xyz) are left out; the colour pictures are inspected.")
        place = child(group, "rgb")
        if place is None:
            self.report(group, "this class has no folder rgb; it was not read")
            return []
        return image_files(place, self)

    def _masks(self, folder: Path, part: Path, group: Path) -> dict[str, tuple[Path, ...]]:
        place, pictures = child(group, "gt"), child(group, "rgb")
        if place is None or pictures is None:
            return {}
        return {f"{pictures.name}/{stem}".casefold(): masks for stem, masks in masks_in(place).items()}
