"""YOLO: `images` and `labels` folders, a text file of boxes an image, the names of the classes in `data.yaml`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from sage_ad.evaluation.datasets.common import broken_header, child, holds_images, image_files, subfolders
from sage_ad.evaluation.datasets.detection import TESTS, VALIDATIONS, Box, DetectionDataset, splits_of
from sage_ad.evaluation.datasets.masks import upright_size
from sage_ad.evaluation.datasets.sample import Sample, Split

YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


def _split_folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """Folders of images and labels by the name of their split."""
    found = {}
    for folder in subfolders(root):  # train/images beside train/labels
        images, labels = child(folder, "images"), child(folder, "labels")
        if images and labels:
            found[folder.name] = (images, labels)
    images, labels = child(root, "images"), child(root, "labels")
    if images and labels:  # images/train beside labels/train, or no splits at all
        parts = [part for part in subfolders(images) if child(labels, part.name)]
        found |= {part.name: (part, child(labels, part.name) or labels) for part in parts}
        if not parts:
            found[""] = (images, labels)
    return {name: pair for name, pair in found.items() if any(pair[1].rglob("*.txt"))}


class YOLO(DetectionDataset):
    """`train/images/*.jpg` with `train/labels/*.txt` (class, centre, width, height, in shares of the image), or polygons."""

    format = "yolo"
    layout = "data.yaml; <split>/images/* and <split>/labels/*.txt, or images/<split>/* and labels/<split>/*.txt"

    @classmethod
    def recognises(cls, root: Path) -> bool:
        return root.is_dir() and any(holds_images(images) for images, _ in _split_folders(root).values())

    def _find_categories(self) -> list[str]:
        self._folders = _split_folders(self.root)
        self._classes = self._read_classes()
        known = {*TESTS, *VALIDATIONS, "train", ""}
        for name in self._folders:
            if name.lower() not in known:
                self.notes.append(f"The split {name!r} is used for training.")
        for folder in subfolders(self.root):
            if (
                folder.name.lower() not in ("images", "labels")
                and folder.name not in self._folders
                and holds_images(folder)
            ):
                self.report(folder, "this folder holds pictures, but no images and labels; it was not read")
        self._tell_classes(list(self._classes.values()))
        if set(self._folders) == {""}:
            self.notes.append("The set has no split, so all of its images test.")
        return [self.root.resolve().name] if self._folders else []

    def _read_classes(self) -> dict[int, str]:
        """Names of the classes by number; the numbers themselves where no file names them."""
        import yaml

        for name in YAML_NAMES:
            path = self.root / name
            if not path.is_file():
                continue
            try:
                read = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
                names = read["names"]
                pairs = names.items() if isinstance(names, dict) else enumerate(names)
                return {int(number): str(label) for number, label in pairs}
            except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
                self.report(path, f"the names of the classes cannot be read ({' '.join(str(error).split())[:80]})")
        listed = self.root / "classes.txt"
        if listed.is_file():
            lines = listed.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            return dict(enumerate(line.strip() for line in lines if line.strip()))
        return {}

    def _records(self, category: str) -> Iterator[Sample]:
        uses: dict[str, Split] = splits_of(self._folders)
        for name, (images, labels) in self._folders.items():
            unlabelled = 0
            notes = {
                path.relative_to(labels).with_suffix("").as_posix(): path for path in sorted(labels.rglob("*.txt"))
            }
            for image in image_files(images, self):
                key = image.relative_to(images).with_suffix("").as_posix()
                path = notes.pop(key, None)
                unlabelled += path is None
                found: list[tuple[str, Box]] = []
                if path is not None:
                    if broken_header(image):
                        size = (1, 1)  # `samples` names the image and leaves it out
                    else:
                        size = upright_size(image)
                    boxes, whole = self._read_boxes(path, size)
                    if not whole:
                        self.report(image, "its boxes could not all be read, so its label is unknown; it is left out")
                        continue
                    found = boxes
                yield self._boxed(image, category, uses[name], f"{name}/{key}".lstrip("/"), found)
            for path in notes.values():
                if path.name != "classes.txt":
                    self.report(path, "these boxes belong to no image")
            if unlabelled:
                # As Ultralytics reads them.
                self.note_once(f"{unlabelled} images of {name or 'the set'} have no label file and are taken for good.")

    def _read_boxes(self, path: Path, size: tuple[int, int]) -> tuple[list[tuple[str, Box]], bool]:
        """Named boxes in pixels, and whether every line could be read; polygons become the boxes around them."""
        width, height = size
        found: list[tuple[str, Box]] = []
        whole = True
        for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
            fields = line.split()
            if not fields:
                continue
            try:
                kind, values = int(float(fields[0])), [float(value) for value in fields[1:]]
                if len(values) == 5:  # a detector's file: the last number is its confidence
                    values = values[:4]
                if len(values) < 4 or len(values) % 2 or not all(map(math.isfinite, values)):
                    raise ValueError
                if min(values) < -0.01 or max(values) > 1.01:
                    raise ValueError
            except ValueError:
                self.report(path, f"line {number} is not: class, x, y, width, height, in shares of the image (0 to 1)")
                whole = False
                continue
            if len(values) == 4:
                x, y, w, h = values
                box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            else:
                box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
            pixels = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
            found.append((self._classes.get(kind, f"class {kind}"), pixels))
        return found, whole
