"""Reads the pictures that users really have: any depth, mode and orientation in, upright 8-bit RGB out.

What cannot be read or cannot be inspected is refused with one sentence that names the file; what is read only in part is
said in the picture's notes. The readers of the formats stand in `sage_ad.vlm.pictures`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.pictures.brightness import Brightness, Values, common_brightness, values_of
from sage_ad.vlm.pictures.decoded import Decoded
from sage_ad.vlm.pictures.formats import (
    ENDINGS,
    UNREAD_ENDINGS,
    Kind,
    is_picture,
    is_sniffed,
    kind_of,
    known_formats,
    may_hold_several,
    reader_of,
)
from sage_ad.vlm.pictures.pages import Page, chosen_page, file_of, page_address, parts_of, split_page
from sage_ad.vlm.pictures.pillow_reader import TooLarge

__all__ = [
    "ENDINGS",
    "MAX_PIXELS",
    "MIN_SIDE",
    "FolderListing",
    "expand_references",
    "file_of",
    "files_in",
    "in_range",
    "list_images",
    "load_image",
    "notes_of",
    "page_address",
    "pages_of",
    "scan_folder",
    "shared_brightness",
    "split_page",
    "stored_size",
]

MAX_PIXELS = 80_000_000
"""Larger pictures are refused before they are decoded (an RGB copy of this many pixels takes 240 MB)."""

MIN_SIDE = 16
"""Smaller pictures hold less than one patch of the encoder in some direction, so there is nothing to compare."""

_T = TypeVar("_T")
_REMEMBERED = 4096
_MEASURED: dict[tuple[str, int, int], Values | None] = {}
_MEASURED_LOCK = threading.Lock()
_TAIL, _EMPTY = 65536, 512
_LAST_BYTES = {
    "PNG": b"IEND\xaeB`\x82",
    "JPEG": b"\xff\xd9",
    "GIF": b";",
    **dict.fromkeys(("WebP", "JPEG 2000", "AVIF", "HEIF"), b""),
}
"""Compressed kinds, and how their files end where padding may follow; no compression leaves so many zeros behind one another."""

_NAMED = 5
"""So many files that are no pictures are named; of the others only the number is said."""


def load_image(
    path: str | os.PathLike[str],
    *,
    brightness: Brightness | None = None,
    max_pixels: int = MAX_PIXELS,
    min_side: int = MIN_SIDE,
) -> Image.Image:
    """Reads a picture as upright 8-bit RGB.

    Palettes and CMYK are turned into RGB, transparent pixels are laid over white, and the orientation noted by a camera
    (EXIF) is applied. Values of more than 8 bits are scaled by a range of brightness. Of several pages that are copies of
    each other the largest is taken (`notes_of` says so).

    Args:
        path: file of the picture; `FILE#page=N` names one page of a file that holds several pictures.
        brightness: the range for values of more than 8 bits, from `shared_brightness` where the picture is to be compared
            with others; None takes it from this picture alone.
        max_pixels: pictures with more pixels are refused before they are decoded.
        min_side: pictures with a shorter side (in pixels) are refused.

    Returns:
        A new image of mode "RGB"; the file is closed.

    Raises:
        InputError: the file is missing, a folder, empty, no picture, damaged, too large or too small, needs a package that
            is not installed, or holds several pictures of which none was named.
    """
    decoded = _decode(path, max_pixels, min_side)
    if decoded.values is not None and brightness is None:
        values = values_of(decoded.values, decoded.full)
        _remember((os.fspath(path), *_stamp(path)), values)
        brightness = common_brightness([values])
    image = decoded.to_rgb(brightness)
    used = None if decoded.values is None or brightness is None else (brightness.low, brightness.high)
    image.info = {"notes": tuple(decoded.notes), "range": used}
    return image


def in_range(image: Image.Image, path: str | os.PathLike[str], brightness: Brightness | None) -> Image.Image:
    """The picture of `load_image(path)` as it looks with this range of brightness; read again only if it must be."""
    used = image.info.get("range")
    if used is None or brightness is None or used == (brightness.low, brightness.high):
        return image
    return load_image(path, brightness=brightness)


def notes_of(image: Image.Image) -> tuple[str, ...]:
    """What a reader of `load_image`'s picture must know (a page or a channel that was left out), in sentences."""
    return tuple(image.info.get("notes", ()))


def shared_brightness(paths: Sequence[str | os.PathLike[str]]) -> Brightness | None:
    """The one range with which pictures that are compared must be read; None if all have 8 bits.

    Raises:
        InputError: a picture cannot be read, or some hold floats and some whole numbers.
    """
    measured = {os.fspath(path): _measured(os.fspath(path)) for path in paths}
    deep = {name: values for name, values in measured.items() if values is not None}
    if not deep:
        return None
    first = next(iter(deep))
    for name, values in deep.items():
        if values.kind != deep[first].kind:
            raise InputError(
                f"{first} holds values of the kind {deep[first].kind!r} and {name} of the kind {values.kind!r}, which have no "
                "range of brightness in common; save the part and its references in the same way."
            )
    return common_brightness(list(deep.values()), plain=len(measured) - len(deep))


def stored_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of a picture as stored (not yet turned), from its header.

    Raises:
        InputError: as `load_image`, as far as the header tells.
    """
    file, wanted = split_page(path)
    _check_file(file)
    return _guarded(file, MAX_PIXELS, lambda: _chosen(file, wanted)[0].size)


def pages_of(path: str | os.PathLike[str]) -> list[Path]:
    """The addresses of the pictures in a file: itself, or its pages where several are pictures of their own.

    A file that cannot be read is its own address; the reason is given when it is loaded.
    """
    file, wanted = split_page(path)
    if wanted is not None or not may_hold_several(file):
        return [Path(path)]
    try:
        parts = parts_of(_guarded(file, MAX_PIXELS, lambda: _pages(file)))
    except InputError:
        return [file]
    return [file] if len(parts) == 1 else [page_address(file, number + 1) for number in parts]


@dataclass
class FolderListing:
    """What a folder holds.

    Attributes:
        pictures: addresses of the pictures, sorted by path; those whose format is not read are among them.
        notes: sentences about what was left out.
    """

    pictures: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def scan_folder(folder: str | os.PathLike[str], *, recursive: bool = False) -> FolderListing:
    """Pictures in a folder, each page of a file with several pictures by itself; hidden files are left out.

    Args:
        folder: the folder.
        recursive: enter the folders below it, and linked ones once each, however they are linked.

    Raises:
        InputError: the folder is missing or is a file.
    """
    name = Path(folder)
    if not name.exists():
        raise InputError(f"There is no folder {name}; check the path.")
    if not name.is_dir():
        raise InputError(f"{name} is a file, not a folder; give the folder that holds the pictures.")
    listing = FolderListing()
    others, closed = list[Path](), dict[Path, str]()
    try:
        for entry in files_in(name, recursive=recursive, closed=closed):
            if is_picture(entry):
                listing.pictures += pages_of(entry)
            elif entry.name.lower() not in ("thumbs.db", "desktop.ini"):
                others.append(entry)
    except OSError as error:
        raise InputError(f"The folder {name} cannot be read ({error.strerror}); check its permissions.") from None
    listing.pictures.sort(key=lambda path: (str(file_of(path)), split_page(path)[1] or 0))
    if others:
        listing.notes.append(
            _count(others, "file is no picture and was left out", "files are no pictures and were left out")
        )
    listing.notes += [f"The folder {path} was not entered ({why})." for path, why in closed.items() if why]
    if passed := [path for path, why in closed.items() if not why]:
        listing.notes.append(_count(passed, "folder was not entered", "folders were not entered"))
    return listing


def files_in(folder: Path, *, recursive: bool, closed: dict[Path, str]) -> Iterator[Path]:
    """Files in a folder; hidden ones are left out.

    Args:
        folder: the folder.
        recursive: enter the folders below it, and linked ones once each, however they are linked.
        closed: is given the folders that were not entered, with the reason where the system refused.

    Raises:
        OSError: the folder itself cannot be read.
    """
    entered: set[tuple[int, int]] = set()
    waiting, linked = [folder], list[Path]()
    while waiting or linked:
        # Real folders come first, so that what is linked from elsewhere in the tree keeps its own name.
        current = waiting.pop() if waiting else linked.pop(0)
        try:
            status = current.stat()
            with os.scandir(current) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if current == folder:
                raise
            closed[current] = error.strerror or str(error)
            continue
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            is_folder = False
            with contextlib.suppress(OSError):  # a link that leads to itself
                is_folder = entry.is_dir()
            path = current / entry.name
            if not is_folder:
                yield path
            elif recursive:
                (linked if entry.is_symlink() else waiting).append(path)
            else:
                closed[path] = ""


def list_images(folder: str | os.PathLike[str], say: Callable[[str], None] | None = None) -> list[Path]:
    """Pictures directly inside a folder, as `scan_folder` finds them; `say` is told what was left out.

    Raises:
        InputError: the folder is missing, is a file, or holds no picture.
    """
    found = scan_folder(folder)
    if not found.pictures:
        raise InputError(f"The folder {folder} holds no picture ({', '.join(ENDINGS[:4])}, ...); give another folder.")
    if say is not None:
        for note in found.notes:
            say(f"{folder}: {note}")
    return found.pictures


def expand_references(paths: Iterable[Path], say: Callable[[str], None] | None = None) -> list[Path]:
    """Addresses of the references: a folder stands for the pictures in it, a file with several pictures for each of them.

    Args:
        paths: files and folders.
        say: is told what was left out of a folder.

    Raises:
        InputError: a path does not exist, or a folder holds no picture.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += list_images(path, say)
        elif file_of(path).is_file():
            files += pages_of(path)
        else:
            raise InputError(f"The reference {path} does not exist; check the path.")
    return files


def _decode(path: str | os.PathLike[str], max_pixels: int, min_side: int) -> Decoded:
    """Decodes a picture after its header was found bearable."""
    file, wanted = split_page(path)
    _check_file(file)

    def decode() -> Decoded:
        page, number, notes = _chosen(file, wanted)
        width, height = page.size
        if width * height > max_pixels:
            raise _too_large(file, max_pixels, f"{width} x {height} pixels")
        if min(width, height) < min_side:
            raise InputError(
                f"{file} has only {width} x {height} pixels and cannot be inspected; "
                f"give a picture of at least {min_side} x {min_side} pixels."
            )
        kind = kind_of(file)
        _check_end(file, kind)
        decoded: Decoded = reader_of(file, kind).read(file, number)
        decoded.notes[:0] = notes
        # Of NaN both are NaN; four times is what a range of brightness may reach.
        if decoded.values is not None and not all(
            np.isfinite(4 * float(end)) for end in (decoded.values.min(), decoded.values.max())
        ):
            raise InputError(
                f"{file} holds values that are no numbers (NaN or infinite); save it as 8- or 16-bit grey."
            )
        return decoded

    return _guarded(file, max_pixels, decode)


def _chosen(file: Path, wanted: int | None) -> tuple[Page, int, list[str]]:
    pages = _pages(file)
    number, notes = chosen_page(file, pages, wanted)
    return pages[number], number, notes


def _pages(file: Path) -> list[Page]:
    kind = kind_of(file)
    # Raw files of cameras are TIFFs whose pages are previews.
    if file.suffix.lower() in UNREAD_ENDINGS and (kind is None or kind.name == "TIFF"):
        raise InputError(f"{file} has the format {file.suffix[1:].upper()}, which is not read; save it as PNG or TIFF.")
    found: list[Page] = reader_of(file, kind).pages(file)
    return found


def _guarded(file: Path, max_pixels: int, work: Callable[[], _T]) -> _T:
    """Does something with a file and turns whatever a decoder makes of a bad one into one sentence."""
    try:
        return work()
    except InputError:
        raise
    except TooLarge:
        raise _too_large(file, max_pixels, "far too many pixels") from None
    except UnidentifiedImageError:
        kind = kind_of(file)
        if kind is None or not is_sniffed(file):
            raise InputError(f"{file} is no picture that can be read; give a {known_formats()} file.") from None
        raise InputError(
            f"{file} is a {kind.name} file that is damaged, or of a variant that is not read (12 bits, say); save it as PNG."
        ) from None
    except PermissionError:
        raise InputError(f"{file} may not be read by this user; change its permissions.") from None
    except Exception as error:  # decoders of damaged files raise anything, from struct.error to ZeroDivisionError
        raise InputError(f"{file} is damaged or cut short ({_brief(error)}); save or copy the picture again.") from None


def _measured(path: str) -> Values | None:
    """What the values of a picture of more than 8 bits are like; None for one of 8 bits, whose pixels are not decoded."""
    key = (path, *_stamp(path))
    with _MEASURED_LOCK:
        if key in _MEASURED:
            return _MEASURED[key]
    file, wanted = split_page(path)
    values = None
    if _guarded(file, MAX_PIXELS, lambda: _chosen(file, wanted)[0]).deep:
        decoded = _decode(path, MAX_PIXELS, MIN_SIDE)
        values = None if decoded.values is None else values_of(decoded.values, decoded.full)
    _remember(key, values)
    return values


def _remember(key: tuple[str, int, int], values: Values | None) -> None:
    with _MEASURED_LOCK:
        while len(_MEASURED) >= _REMEMBERED:
            _MEASURED.pop(next(iter(_MEASURED)))
        _MEASURED[key] = values


def _stamp(path: str | os.PathLike[str]) -> tuple[int, int]:
    file = file_of(path)
    _check_file(file)
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _check_file(name: Path) -> None:
    """Refuses what is no regular, non-empty file before anything tries to decode it."""
    try:
        if name.is_dir():
            raise InputError(f"{name} is a folder, not a picture; give the file of a picture.")
        if not name.exists():
            raise InputError(f"There is no picture {name}; check the path.")
        if not name.is_file():
            raise InputError(f"{name} is no ordinary file; give the file of a picture.")
        if name.stat().st_size == 0:
            raise InputError(f"{name} is empty (0 bytes); save or copy the picture again.")
    except (OSError, ValueError) as error:
        raise InputError(f"{str(name)[:200]!r} cannot be opened ({_brief(error)}); check the path.") from None


def _check_end(file: Path, kind: Kind | None) -> None:
    """Refuses a compressed picture whose end is empty: a copy that broke off, or a file on a disk that lost its power.

    Decoders take the rest of such a picture for grey or black.
    """
    if kind is None or kind.name not in _LAST_BYTES:
        return
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _TAIL))
        tail = stream.read()
    written = tail.rstrip(b"\0")
    last = _LAST_BYTES[kind.name]
    if len(tail) - len(written) >= _EMPTY and not (last and written.endswith(last)):
        raise InputError(f"{file} was not written whole (its end is empty); save or copy the picture again.")


def _too_large(name: Path, max_pixels: int, size: str) -> InputError:
    return InputError(
        f"{name} has {size}, and more than {max_pixels / 1e6:g} million are not read; "
        "scale it down or cut it into tiles."
    )


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 80 else text[:77] + "..."


def _count(paths: list[Path], one: str, several: str) -> str:
    named = ", ".join(path.name for path in sorted(paths)[:_NAMED])
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return f"{len(paths)} {one if len(paths) == 1 else several}: {named}{more}."
