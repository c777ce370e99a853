"""What all readers share: the shape of a record, how problems are named, how pictures and annotations are listed."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sage_ad.evaluation.datasets.sample import Problem, Sample, Split
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.images import ENDINGS

if TYPE_CHECKING:
    from PIL import Image

    from sage_ad.vlm.pictures.brightness import Brightness

_JUNK = frozenset({"thumbs.db", "desktop.ini"})
_LABEL_FOLDERS = frozenset(
    {
        "ground_truth",
        "groundtruth",
        "gt",
        "mask",
        "masks",
        "label",
        "labels",
        "annotation",
        "annotations",
        "segmentation",
    }
)


class InspectionDataset(ABC):
    """A labelled set. Subclasses say how files are laid out; this class filters, checks and counts.

    Attributes:
        root: the folder or file that was opened.
        problems: what is broken, found so far (reading more may add more).
        notes: decisions a reader had to make because the set does not say (for example a split), in sentences.
    """

    format: ClassVar[str]
    layout: ClassVar[str]

    def __init__(self, root: Path, categories: Iterable[str] | None = None) -> None:
        self.root = root
        self.notes: list[str] = []
        self._problems: dict[Problem, None] = {}
        self._headers: dict[Path, str | None] = {}
        self._masks_seen: dict[tuple[Path, ...], bool] = {}
        existing = self._find_categories()
        if not existing:
            raise InputError(
                f"{root} holds no category in the layout of {self.format!r}: {self.layout}; check the path."
            )
        wanted = list(dict.fromkeys(categories)) if categories is not None else existing
        if missing := [name for name in wanted if name not in existing]:
            raise InputError(f"{root} has no category {', '.join(map(repr, missing))}; it has: {', '.join(existing)}.")
        self.categories: list[str] = [name for name in existing if name in wanted]
        for name in self.categories:
            self._check_category(name)

    @classmethod
    @abstractmethod
    def recognises(cls, root: Path) -> bool:
        """Whether the folder or file looks like this layout (a quick look; never raises)."""

    @abstractmethod
    def _find_categories(self) -> list[str]:
        """Names of all categories, sorted."""

    @abstractmethod
    def _records(self, category: str) -> Iterator[Sample]:
        """All records of a category, in a fixed order, one by one; their images need not exist."""

    def _check_category(self, category: str) -> None:
        """Raises `InputError` if a category cannot be read as it is meant; called for the chosen ones."""
        return None

    @property
    def name(self) -> str:
        """Name of the set: that of its folder or file."""
        return self.root.resolve().name

    @property
    def problems(self) -> list[Problem]:
        """Everything found broken so far, each once, in the order of finding."""
        return list(self._problems)

    def report(self, path: str | Path, reason: str) -> None:
        """Names a broken record; the same one is counted once however often it is met."""
        self._problems[Problem(self._short(path), reason)] = None

    def note_once(self, note: str) -> None:
        """Notes a decision; it is said once however often the records are read."""
        if note not in self.notes:
            self.notes.append(note)

    def samples(self, category: str | None = None, split: Split | None = None) -> Iterator[Sample]:
        """Streams the records whose image has a readable header; the others go to `problems`.

        Masks that cannot be read, or cannot be meant so (`check_masks`), are named there too, and the record goes without.

        Args:
            category: one category; None goes through all.
            split: "train" or "test"; None gives both.
        """
        if category is not None and category not in self.categories:
            raise InputError(f"{self.root} has no category {category!r}; it has: {', '.join(self.categories)}.")
        for name in self.categories if category is None else [category]:
            for sample in self._records(name):
                if split is not None and sample.split != split:
                    continue
                if sample.image not in self._headers:
                    self._headers[sample.image] = broken_header(sample.image)
                reason = self._headers[sample.image]
                if reason:
                    self.report(sample.image, reason)
                elif sample.masks and not self._masks_hold(sample):
                    yield replace(sample, masks=(), mask_kind=None)
                else:
                    yield sample

    def _masks_hold(self, sample: Sample) -> bool:
        from sage_ad.evaluation.datasets.masks import check_masks

        if sample.masks not in self._masks_seen:
            try:
                check_masks(sample)
            except InputError as error:
                self.report(sample.masks[0], str(error))
                self._masks_seen[sample.masks] = False
            else:
                self._masks_seen[sample.masks] = True
        return self._masks_seen[sample.masks]

    def normals(self, category: str) -> list[Sample]:
        """Good training images: what references and calibration are drawn from."""
        return [sample for sample in self.samples(category, "train") if sample.anomalous is False]

    def load(self, sample: Sample) -> Image.Image | None:
        """The sample's picture, or None if it cannot be decoded (it is then named in `problems`)."""
        return self.load_file(sample.image)

    def load_file(self, path: Path, brightness: Brightness | None = None) -> Image.Image | None:
        """A picture of the set (a reference, say), or None if it cannot be decoded (then named in `problems`).

        `brightness` is the range that it shares with those that it is compared with. What was left out of it is named, too.
        """
        from sage_ad.vlm.images import load_image, notes_of

        try:
            image = load_image(path, brightness=brightness)
        except InputError as error:
            self.report(path, str(error))
            return None
        for note in notes_of(image):
            self.report(path, note)
        return image

    def brightness(self, paths: Sequence[Path]) -> Brightness | None:
        """The range that pictures of the set share; those that cannot be read are left to `load_file`."""
        from sage_ad.vlm.images import shared_brightness

        try:
            return shared_brightness(paths)
        except InputError:
            return shared_brightness([path for path in paths if self._is_readable(path)])

    @staticmethod
    def _is_readable(path: Path) -> bool:
        from sage_ad.vlm.images import load_image

        try:
            load_image(path)
        except InputError:
            return False
        return True

    def data_hash(self, category: str) -> str:
        """Short digest of a category's files (names, sizes, times) and labels; it changes when any of them does."""
        digest = hashlib.sha256()
        for sample in self._records(category):
            digest.update(f"{sample.id}|{sample.defect}|{sample.split}|{sample.mask_kind}|{sample.boxes}".encode())
            for path in (sample.image, *sample.masks, *([sample.reference] if sample.reference else [])):
                digest.update(_stamp(path).encode())
            for question in sample.questions:
                digest.update(f"{question.text}|{question.verdict}|{question.reference_answer}".encode())
        return digest.hexdigest()[:16]

    def _short(self, path: str | Path) -> str:
        """A path as the user wrote the set's, without what lies above it."""
        try:
            return Path(path).relative_to(self.root).as_posix()
        except ValueError:
            return str(path)


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return f"{path.name}:absent"
    return f"{path.name}:{status.st_size}:{status.st_mtime_ns}"


def broken_header(path: Path) -> str | None:
    """Why a file cannot be a picture (missing, empty, no picture format, several pictures), or None; nothing is decoded."""
    from sage_ad.vlm.images import stored_size

    if not path.is_file():
        return "the image is missing" if not path.exists() else "this is no file"
    try:
        stored_size(path)
    except InputError as error:
        return str(error).replace(f"{path} ", "the image ", 1)
    return None


def name_key(name: str) -> str:
    """A name as it is compared: letter case and the two Unicode spellings of accents make no difference."""
    return unicodedata.normalize("NFC", name).casefold()


def child(folder: Path, *names: str) -> Path | None:
    """The sub-folder (or sub-sub-folder) of these names in any case, or None."""
    current = folder
    for name in names:
        exact = current / name
        if not exact.is_dir():
            found = [entry for entry in subfolders(current) if name_key(entry.name) == name_key(name)]
            if not found:
                return None
            exact = found[0]
        current = exact
    return current


def subfolders(folder: Path) -> list[Path]:
    """Visible sub-folders, sorted; none for a path that is no folder or may not be read."""
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def is_image_name(path: Path) -> bool:
    """Whether a file's ending (in any case) is that of a picture."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")


def has_images(folder: Path) -> bool:
    """Whether pictures lie directly in the folder."""
    try:
        return any(is_image_name(entry) for entry in folder.iterdir())
    except OSError:
        return False


def holds_images(folder: Path) -> bool:
    """Whether pictures lie in the folder or below it."""
    return has_images(folder) or any(holds_images(entry) for entry in subfolders(folder) if not entry.is_symlink())


def is_label_folder_name(name: str) -> bool:
    """Whether a folder of this name holds masks or labels, and no pictures of parts."""
    return name_key(name).replace("-", "_").replace(" ", "_") in _LABEL_FOLDERS


def image_files(folder: Path, dataset: InspectionDataset | None = None) -> list[Path]:
    """Pictures in a folder and below it, sorted; other visible files are named in the data set's problems.

    Folders of masks or labels in it are not entered, and named.
    """
    found, closed = [], False
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if is_label_folder_name(entry.name):
                closed = True
                if dataset:
                    dataset.report(entry, "this folder is called like one of masks or labels and was not read as parts")
            else:
                found += image_files(entry, dataset)
        elif is_image_name(entry):
            found.append(entry)
        elif dataset and entry.is_file() and entry.name.lower() not in _JUNK:
            dataset.report(entry, "this file has not the ending of a picture")
    if dataset and not found and not closed and not subfolders(folder):
        dataset.report(folder, "the folder holds no picture")
    return found


def held_out(position: int, every: int) -> Split:
    """The split of the n-th good image of a set that has none: each `every`-th tests, the rest train."""
    return "test" if position % every == every - 1 else "train"


def json_value(path: Path, keys: Sequence[str]) -> Any:
    """The JSON of a file whose beginning or end holds one of these keys; None if it does not, or is no JSON.

    Large files of other sets are not parsed for a look.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(65536)
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - 65536))
            ends = head + stream.read()
        if not any(f'"{key}"'.encode() in ends for key in keys):
            return None
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return None


def json_records(path: Path, dataset: InspectionDataset) -> Iterator[tuple[str, Any]]:
    """Streams the records of a JSON array, a JSON object or a JSON-lines file as (key or position, value).

    A half-written file gives every record before the break; the break is named in the data set's problems.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        dataset.report(path, f"the file cannot be read as UTF-8 text ({' '.join(str(error).split())[:80]})")
        return
    start = len(text) - len(text.lstrip())
    first = text[start : start + 1]
    if first == "[":
        yield from _json_items(text, start + 1, path, dataset, keyed=False)
    elif first == "{" and not _is_lines(text[start:]):
        yield from _json_items(text, start + 1, path, dataset, keyed=True)
    else:
        yield from _json_lines(text, path, dataset)


def _is_lines(text: str) -> bool:
    """Whether the text is JSON lines (each line an object of its own), and not one object of keyed records."""
    first, _, rest = text.partition("\n")
    try:
        record = json.loads(first)
    except ValueError:
        return False
    return bool(rest.strip()) or not all(isinstance(value, dict) for value in record.values())


def _json_lines(text: str, path: Path, dataset: InspectionDataset) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield str(number), json.loads(line)
        except ValueError as error:
            dataset.report(f"{dataset._short(path)} line {number}", f"this is no JSON ({error})")


def _json_items(
    text: str, position: int, path: Path, dataset: InspectionDataset, *, keyed: bool
) -> Iterator[tuple[str, Any]]:
    """Decodes one item of an array (or one pair of an object) after the other, so that a break costs only the rest."""
    decoder = json.JSONDecoder()
    count = 0
    try:
        while True:
            position = _skip(text, position, " \t\r\n,")
            if text[position : position + 1] in ("]", "}"):
                return
            key: Any = str(count + 1)
            if keyed:
                key, position = decoder.raw_decode(text, position)
                position = _skip(text, position, " \t\r\n:")
            value, position = decoder.raw_decode(text, position)
            count += 1
            yield str(key), value
    except ValueError as error:
        line = text.count("\n", 0, position) + 1
        dataset.report(
            f"{dataset._short(path)} line {line}",
            f"the JSON breaks off after {count} records ({error}); the rest is lost",
        )


def _skip(text: str, position: int, characters: str) -> int:
    while position < len(text) and text[position] in characters:
        position += 1
    return position
