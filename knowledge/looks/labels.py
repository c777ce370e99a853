"""Regions as other tools read and write them: COCO files and tasks of Label Studio, out and back into the looks of a pack."""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from sage_ad.knowledge.looks.naming import card_name
from sage_ad.knowledge.looks.pictures import GOOD, Added, add_looks
from sage_ad.knowledge.store.packs import Pack
from sage_ad.vlm.errors import InputError

UNNAMED = "unnamed"
"""Label of a region whose defect nobody has named."""

LOCAL_FILES = "/data/local-files/"
"""Address under which Label Studio serves files of its machine, with the path below its document root as `d`."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class LabelledPicture:
    """A picture with named boxes.

    Attributes:
        image: address of the picture.
        size: width and height in pixels, upright.
        boxes: name and box (x0, y0, x1, y1 in pixels, x1 and y1 exclusive) of each region.
        score: how suspicious the part is (its score as a multiple of the threshold).
    """

    image: str
    size: tuple[int, int]
    boxes: Sequence[tuple[str, Box]] = ()
    score: float = 0.0


@dataclass
class LabelledLooks:
    """What `add_labelled` did.

    Attributes:
        added: new looks, and files that the pack held already.
        notes: a sentence for each kind of entry that was left out.
    """

    added: Added = field(default_factory=lambda: Added([], []))
    notes: list[str] = field(default_factory=list)


def coco(pictures: Sequence[LabelledPicture]) -> dict[str, Any]:
    """The pictures as the JSON value of a COCO file; boxes are x, y, width, height."""
    names = sorted({name for picture in pictures for name, _ in picture.boxes})
    numbers = {name: number for number, name in enumerate(names, start=1)}
    notes: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, start=1):
        for name, (x0, y0, x1, y1) in picture.boxes:
            box = [x0, y0, x1 - x0, y1 - y0]
            note = {"id": len(notes) + 1, "image_id": number, "category_id": numbers[name]}
            notes.append({**note, "bbox": box, "area": box[2] * box[3], "iscrowd": 0, "segmentation": []})
    return {
        "info": {"description": "Regions found by SAGE"},
        "images": [
            {"id": number, "file_name": picture.image, "width": picture.size[0], "height": picture.size[1]}
            for number, picture in enumerate(pictures, start=1)
        ],
        "annotations": notes,
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
    }


def label_studio(pictures: Sequence[LabelledPicture]) -> list[dict[str, Any]]:
    """The pictures as tasks of Label Studio with the regions as predictions, boxes in per cent of the picture.

    The labelling configuration names them `image` and `label` (docs/service.md shows one). Files are addressed below the
    root of the file system (`LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=/`).
    """
    return [
        {
            "data": {"image": f"{LOCAL_FILES}?d={quote(picture.image.lstrip('/'))}"},
            "predictions": [
                {
                    "model_version": "sage",
                    "score": round(picture.score, 4),
                    "result": [
                        _rectangle(number, *region, picture.size) for number, region in enumerate(picture.boxes)
                    ],
                }
            ],
        }
        for picture in pictures
    ]


def _rectangle(number: int, name: str, box: Box, size: tuple[int, int]) -> dict[str, Any]:
    (x0, y0, x1, y1), (width, height) = box, size
    value = {"x": 100 * x0 / width, "y": 100 * y0 / height, "rotation": 0}
    value |= {"width": 100 * (x1 - x0) / width, "height": 100 * (y1 - y0) / height}
    return {
        "id": f"region{number}",
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**value, "rectanglelabels": [name]},
    }


def add_labelled(
    domain: str, product: str, file: Path, *, pack: Pack | None = None, pictures: Path | None = None, source: str = ""
) -> LabelledLooks:
    """Adds the labelled pictures of a COCO file or of Label Studio's export (JSON) to the user's pack of a domain.

    A picture with boxes of one name is a look of that defect, at the largest of them; `good` names a good part.

    Args:
        domain, product, source: as for `add_looks`.
        file: the labels.
        pack: the pack of the domain, whose cards give the names of the defects that they know; None keeps all as written.
        pictures: folder of the pictures; None takes the paths in the file, or the folder that it lies in.

    Raises:
        InputError: the file cannot be read, a picture is missing or ambiguous, or nothing in it can be added.
    """
    left: Counter[str] = Counter()
    places = _Places(pictures or file.parent)
    looks: dict[str, list[tuple[Path, Box | None]]] = {}
    notes: dict[str, None] = {}
    for name, size, boxes in [*_entries(file, left)]:
        named = [(label, box) for label, box in boxes if label.casefold() != UNNAMED]
        if pack is not None:
            cards = [card_name(pack, label) if label.casefold() != GOOD else (label, None) for label, _ in named]
            notes |= {note: None for _, note in cards if note}
            named = [(card, box) for (card, _), (_, box) in zip(cards, named, strict=True)]
        kinds = {label.casefold() for label, _ in named}
        if len(kinds) != 1:
            left["have no named label" if not kinds else "have labels of several names; a look shows one defect"] += 1
            continue
        defect, box = max(named, key=lambda item: 0 if item[1] is None else _area(item[1]))
        picture = places.find(name)
        looks.setdefault(GOOD if defect.casefold() == GOOD else defect, []).append(
            (picture, None if box is None or defect.casefold() == GOOD else _inside(box, size, picture))
        )
    if not looks:
        raise InputError(
            f"{file} holds no picture with a named label ({_told(left) or 'it is empty'}); label some first."
        )
    found = LabelledLooks(notes=[*(f"{count} pictures {why}." for why, count in left.items()), *notes])
    for defect, items in looks.items():
        added = add_looks(
            domain, product, [path for path, _ in items],
            defect=None if defect == GOOD else defect, boxes=[box for _, box in items], source=source,
        )  # fmt: skip
        found.added.new.extend(added.new)
        found.added.known.extend(added.known)
    return found


Entry = tuple[str, tuple[int, int] | None, list[tuple[str, tuple[float, float, float, float] | None]]]
"""Address of a picture, its size if the file gives it, and its labels: name and box (None: the whole picture)."""


def _entries(file: Path, left: Counter[str]) -> Iterator[Entry]:
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"The labels in {file} cannot be read ({error}); give a COCO or Label Studio file.") from None
    try:
        if isinstance(value, dict) and {"images", "annotations", "categories"} <= value.keys():
            yield from _coco_entries(value)
        elif isinstance(value, list) and all(isinstance(task, dict) and "data" in task for task in value):
            yield from _task_entries(value, left)
        else:
            raise InputError(
                f"{file} is neither COCO (images, annotations, categories) nor a JSON export of Label Studio; export one."
            )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise InputError(
            f"The labels in {file} are damaged ({type(error).__name__}: {error}); export them again."
        ) from None


def _coco_entries(value: dict[str, Any]) -> Iterator[Entry]:
    names = {item["id"]: str(item["name"]) for item in value["categories"]}
    boxes: dict[Any, list[Any]] = {}
    for note in value["annotations"]:
        x, y, width, height = (float(number) for number in note["bbox"])
        boxes.setdefault(note["image_id"], []).append((names[note["category_id"]], (x, y, x + width, y + height)))
    for image in value["images"]:
        size = (int(image["width"]), int(image["height"])) if image.get("width") and image.get("height") else None
        yield image["file_name"], size, boxes.get(image["id"], [])


def _task_entries(tasks: Iterable[dict[str, Any]], left: Counter[str]) -> Iterator[Entry]:
    for task in tasks:
        done = [item for item in task.get("annotations", []) if not item.get("was_cancelled")]
        if not done:
            left["were not labelled by anybody (predictions do not count)"] += 1
            continue
        labels: list[Any] = []
        size = None
        for result in done[-1]["result"]:
            if result["type"] == "choices":
                labels += [(str(name), None) for name in result["value"]["choices"]]
            elif result.get("image_rotation"):
                left["have a label on the picture turned in Label Studio, which is not read"] += 1
            elif result["type"] in ("rectanglelabels", "polygonlabels"):
                size = (int(result["original_width"]), int(result["original_height"]))
                box = _pixels(result["value"], size)
                labels += [(str(name), box) for name in result["value"][result["type"]]]
            else:
                left[f"have a label of the kind {result['type']!r}, which is not read"] += 1
        yield _address(task["data"]), size, labels


def _address(data: dict[str, Any]) -> str:
    """The picture among the fields of a task, whose names are the user's choice."""
    from sage_ad.vlm.images import ENDINGS

    texts = [str(data["image"])] if data.get("image") else [*map(str, data.values())]
    named = [text for text in texts if {posixpath.splitext(part)[1].lower() for part in text.split("?")} & {*ENDINGS}]
    return [*named, *texts][0]


def _pixels(value: dict[str, Any], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Box in pixels of a rectangle (turned ones: the upright one around it) or polygon in per cent."""
    if "points" in value:
        points = [(x * size[0] / 100, y * size[1] / 100) for x, y in value["points"]]
    else:
        x, y, width, height = (
            value[name] * side / 100 for name, side in zip(("x", "y", "width", "height"), size * 2, strict=True)
        )
        turn = math.radians(value.get("rotation", 0))
        cosine, sine = math.cos(turn), math.sin(turn)
        corners = ((0.0, 0.0), (width, 0.0), (0.0, height), (width, height))
        points = [(x + a * cosine - b * sine, y + a * sine + b * cosine) for a, b in corners]
    across, down = zip(*points, strict=True)
    return min(across), min(down), max(across), max(down)


def _inside(box: tuple[float, float, float, float], size: tuple[int, int] | None, picture: Path) -> Box:
    """The box in whole pixels, cut off at the edge of the picture.

    Raises:
        InputError: the picture is no longer as large as it was when it was labelled, or the box is nowhere.
    """
    from sage_ad.vlm.images import load_image

    real = load_image(picture).size
    if size is not None and size != real:
        (width, height), (now_wide, now_high) = size, real
        raise InputError(
            f"{picture} has {now_wide} x {now_high} pixels, but was labelled with {width} x {height}; give the pictures "
            "that were labelled."
        )
    if not all(map(math.isfinite, box)):
        raise InputError(f"The box {box} of {picture} holds a value that is no number; label it again.")
    x0, y0, x1, y1 = (max(0, round(number)) for number in box)
    x1, y1 = min(x1, real[0]), min(y1, real[1])
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _told(left: Counter[str]) -> str:
    return "; ".join(f"{count} {why}" for why, count in left.items())


class _Places:
    """Finds pictures by the addresses that tools give them: paths, addresses of a server, or names alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, list[Path]] | None = None

    def find(self, address: str) -> Path:
        """The file, or the page of one.

        Raises:
            InputError: it is missing, or there are several of that name.
        """
        from sage_ad.vlm.images import page_address, split_page

        where, _, query = address.partition("?")
        below = parse_qs(query).get("d", [""])[0]
        path = f"/{below}" if LOCAL_FILES in where and below else address
        file, page = split_page(path)
        return self._file(path) if page is None else page_address(self._file(str(file)), page)

    def _file(self, path: str) -> Path:
        for candidate in (Path(path), self.folder / path.lstrip("/")):
            if _is_file(candidate):
                return candidate
        if self._names is None:
            self._names = {}
            for known in sorted(self.folder.rglob("*")):
                self._names.setdefault(known.name, []).append(known)
        name = posixpath.basename(path.replace("\\", "/"))
        # Label Studio puts eight digits before the name of an uploaded file.
        names = (name, unquote(name), *(re.sub(r"^[0-9a-f]{8}-", "", text) for text in (name, unquote(name))))
        found = next((self._names[name] for name in names if name in self._names), [])
        if len(found) == 1:
            return found[0]
        why = "is not there" if not found else f"stands for {len(found)} files"
        raise InputError(f"The picture {name} {why} in {self.folder}; name the folder of the pictures with --pictures.")
