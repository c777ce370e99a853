"""COCO: JSON files with images, annotations and categories."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sage_ad.evaluation.datasets.common import image_files, json_value, subfolders
from sage_ad.evaluation.datasets.detection import Box, DetectionDataset, splits_of
from sage_ad.evaluation.datasets.records import find_image, text_of
from sage_ad.evaluation.datasets.sample import Sample, Split

_LISTS = ("images", "annotations", "categories")


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.suffix.lower() == ".json" else []
    return sorted(path for folder in (root, *subfolders(root)) for path in folder.glob("*.json"))


def _is_one(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), list) for name in _LISTS)


class COCO(DetectionDataset):
    """`annotations/instances_<split>.json`, or `<split>/_annotations.coco.json`; boxes are (x, y, width, height)."""

    format = "coco"
    layout = (
        "a JSON file with images, annotations and categories a split, in the folder of its images or in annotations/"
    )

    @classmethod
    def recognises(cls, root: Path) -> bool:
        return any(_is_one(json_value(path, _LISTS)) for path in _files(root))

    def _find_categories(self) -> list[str]:
        self._sets: dict[Path, dict[str, Any]] = {}
        for path in _files(self.root):
            value = json_value(path, _LISTS)
            if _is_one(value):
                self._sets[path] = value
            elif value is not None:
                self.report(path, "this file has not the lists images, annotations and categories; it was not read")
        classes = [name for value in self._sets.values() for name in _classes(value).values()]
        self._tell_classes(list(dict.fromkeys(classes)))
        root = self.root if self.root.is_dir() else self.root.parent
        return [root.resolve().name] if self._sets else []

    def _records(self, category: str) -> Iterator[Sample]:
        names = {path: _split_name(path, self.root) for path in self._sets}
        uses: dict[str, Split] = splits_of(names.values())
        listed: set[Path] = set()
        for path, value in self._sets.items():
            boxes, faulty = self._boxes(path, value)
            for number, record in enumerate(value["images"], start=1):
                name = text_of(record, "file_name") if isinstance(record, dict) else ""
                if not name:
                    self.report(path, f"image {number} names no file")
                    continue
                image = self._find(path, names[path], name)
                listed.add(image)
                if record.get("id") in faulty:
                    self.report(image, "its boxes could not all be read, so its label is unknown; it is left out")
                    continue
                found = boxes.get(record.get("id"), [])
                yield self._boxed(image, category, uses[names[path]], f"{names[path]}/{name}", found)
        if self.root.is_dir():
            others = [
                path for folder in self._image_folders(listed) for path in image_files(folder) if path not in listed
            ]
            if others:
                self.report(
                    others[0].parent, f"{len(others)} pictures are in no list ({others[0].name}, ...) and were not read"
                )

    @staticmethod
    def _image_folders(listed: set[Path]) -> list[Path]:
        folders = {path.parent for path in listed if path.parent.is_dir()}
        return sorted(folder for folder in folders if not folders & set(folder.parents))

    @staticmethod
    def _find(path: Path, split: str, name: str) -> Path:
        """The file of an image: beside its list, or in a folder of its split beside the folder of lists."""
        base = path.parent.parent
        for place in (path.parent, base / split, base / "images" / split, base / "images", path.parent / "images"):
            if (place / name).is_file():
                return place / name
        return find_image(path.parent, name)

    def _boxes(self, path: Path, value: dict[str, Any]) -> tuple[dict[Any, list[tuple[str, Box]]], set[Any]]:
        """Named boxes by the id of their image, and the ids of images with a box that cannot be read."""
        classes = _classes(value)
        boxes: dict[Any, list[tuple[str, Box]]] = {}
        faulty: set[Any] = set()
        for number, note in enumerate(value["annotations"], start=1):
            image = note.get("image_id") if isinstance(note, dict) else None
            try:
                x, y, width, height = (float(number) for number in note["bbox"])
                if not all(map(math.isfinite, (x, y, width, height))):
                    raise ValueError
            except (KeyError, TypeError, ValueError):
                self.report(path, f"annotation {number} has no bbox of four numbers")
                faulty.add(image)
                continue
            kind = classes.get(note.get("category_id"), f"class {note.get('category_id')}")
            boxes.setdefault(image, []).append((kind, (x, y, x + width, y + height)))
        return boxes, faulty


def _classes(value: dict[str, Any]) -> dict[Any, str]:
    return {item.get("id"): str(item.get("name")) for item in value["categories"] if isinstance(item, dict)}


def _split_name(path: Path, root: Path) -> str:
    """Name of a list's split: in its file name (instances_train2017), else that of its folder."""
    for word in path.stem.lower().replace("-", "_").replace(".", "_").split("_"):
        plain = word.rstrip("0123456789")
        if plain in ("train", "test", "val", "valid", "validation"):
            return word
    return path.parent.name if path.parent != root else path.stem
