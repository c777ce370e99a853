"""DeepPCB: pairs of a test image and its own defect-free template, with typed boxes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sage_ad.evaluation.datasets.common import is_image_name
from sage_ad.evaluation.datasets.detection import Box, DetectionDataset
from sage_ad.evaluation.datasets.sample import Sample

TYPES = {1: "open", 2: "short", 3: "mousebite", 4: "spur", 5: "spurious_copper", 6: "pin_hole"}
"""Type numbers of the annotation files, as the set's authors number them."""

CATEGORY = "pcb"


def _test_images(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.stem.lower().endswith("_test") and is_image_name(path):
            yield path


class DeepPCB(DetectionDataset):
    """`<stem>_test.jpg` beside `<stem>_temp.jpg`; `<stem>.txt` in the same folder or its neighbour `<folder>_not`."""

    format = "deeppcb"
    layout = "pairs *_test.jpg and *_temp.jpg with boxes in *.txt (x1 y1 x2 y2 type)"

    @classmethod
    def recognises(cls, root: Path) -> bool:
        if not root.is_dir():
            return False
        first = next(_test_images(root), None)
        return first is not None and (cls._template(first) is not None or cls._annotation(first) is not None)

    def _find_categories(self) -> list[str]:
        return [CATEGORY] if next(_test_images(self.root), None) else []

    def _records(self, category: str) -> Iterator[Sample]:
        for image in _test_images(self.root):
            template = self._template(image)
            key = image.relative_to(self.root).with_suffix("").as_posix()
            if template:
                yield Sample(
                    template, category, "train", anomalous=False, id=f"{category}/{key.removesuffix('_test')}_temp"
                )
            else:
                self.report(image, "its template (*_temp) is missing")
            annotation = self._annotation(image)
            if annotation is None:
                self.report(image, "its boxes (*.txt) are missing, so its label is unknown; the image is left out")
                continue
            found, whole = self._read_boxes(annotation)
            if not whole and not found:
                continue  # no box could be read, which must not pass for "no defect"; the lines are named
            yield self._boxed(image, category, "test", key, found, template)

    @staticmethod
    def _template(image: Path) -> Path | None:
        name = re.sub(r"_test$", "_temp", image.stem, flags=re.IGNORECASE)
        same = image.with_name(name + image.suffix)
        if same.is_file():
            return same
        other = (p for p in image.parent.glob("*") if p.stem.lower() == name.lower() and is_image_name(p))
        return next(other, None)

    @staticmethod
    def _annotation(image: Path) -> Path | None:
        stem = image.stem[: -len("_test")]
        folders = (image.parent, image.parent.with_name(f"{image.parent.name}_not"))
        candidates = [folder / f"{name}.txt" for folder in folders for name in (stem, image.stem)]
        return next((path for path in candidates if path.is_file()), None)

    def _read_boxes(self, path: Path) -> tuple[list[tuple[str, Box]], bool]:
        """Named boxes, and whether every line could be read."""
        found: list[tuple[str, Box]] = []
        whole = True
        for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                x0, y0, x1, y1, kind = (int(float(value)) for value in re.split(r"[,\s]+", line.strip())[:5])
                name = TYPES[kind]
            except (ValueError, KeyError):
                self.report(path, f"line {number} is not: x1 y1 x2 y2 type (1 to 6)")
                whole = False
                continue
            found.append((name, (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))))
        return found, whole
