"""Which kinds of picture exist, how a file is recognised as one, and which reader and package a kind needs.

The one list of endings: the command, the page and the data set readers all take theirs from here.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from sage_ad.vlm.errors import InputError

EXTRA = "formats"
"""The extra of this package that installs what some kinds of picture need."""


@dataclass(frozen=True)
class Kind:
    """A kind of picture file.

    Attributes:
        name: as people call it.
        endings: in lower case, with their dot.
        reader: module with `pages(path)` and `read(path, page)`.
        package: module that the reader cannot do without, where it is not always installed.
        paged: whether one file may hold several pictures.
    """

    name: str
    endings: tuple[str, ...]
    reader: str = "sage_ad.vlm.pictures.pillow_reader"
    package: str | None = None
    paged: bool = False


KINDS = (
    Kind("PNG", (".png", ".apng"), paged=True),
    Kind("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif")),
    Kind("BMP", (".bmp", ".dib")),
    Kind("TIFF", (".tif", ".tiff"), "sage_ad.vlm.pictures.tiff_reader", paged=True),
    Kind("WebP", (".webp",), paged=True),
    Kind("GIF", (".gif",), paged=True),
    Kind("PPM", (".ppm", ".pgm", ".pnm", ".pbm")),
    Kind("JPEG 2000", (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx")),
    Kind("TGA", (".tga",)),
    Kind("AVIF", (".avif",), paged=True),
    Kind("HEIF", (".heic", ".heif"), "sage_ad.vlm.pictures.heif_reader", "pillow_heif", paged=True),
    Kind("DICOM", (".dcm", ".dicom"), "sage_ad.vlm.pictures.dicom_reader", "pydicom", paged=True),
)
ENDINGS = tuple(ending for kind in KINDS for ending in kind.endings)
"""Endings of pictures that are read, in lower case (any case is accepted)."""

UNREAD_ENDINGS = (
    *(".jxl", ".jxr", ".exr", ".hdr", ".pcx", ".psd", ".fits", ".fit", ".sgi", ".qoi", ".dds"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".svs"),
)
"""Endings of pictures that are not read: in a folder they get a row with the reason instead of being passed over."""

_HEAD = 4096
_BY_NAME = {kind.name: kind for kind in KINDS}
_PLAIN_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
)
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def kind_of(path: str | os.PathLike[str]) -> Kind | None:
    """The kind of a file by its first bytes, else by its ending; None if neither says that it is a picture."""
    named = next((kind for kind in KINDS if Path(path).suffix.lower() in kind.endings), None)
    return _sniffed(_head(path)) or named


def is_sniffed(path: Path) -> bool:
    """Whether the first bytes of a file are those of a picture, whatever its name."""
    return _sniffed(_head(path)) is not None


def is_picture(path: Path) -> bool:
    """Whether a file counts as a picture: by its ending, or (as DICOM files often have none) by its first bytes."""
    ending = path.suffix.lower()
    return ending in ENDINGS or ending in UNREAD_ENDINGS or is_sniffed(path)


def may_hold_several(path: Path) -> bool:
    """Whether a file is worth opening to count its pictures."""
    head = _head(path)
    kind = _sniffed(head)
    if kind is None or not kind.paged:
        return False
    if kind.name == "PNG":
        return b"acTL" in head
    return kind.name != "WebP" or b"ANIM" in head


def reader_of(path: Path, kind: Kind | None) -> ModuleType:
    """The module that reads a kind of picture.

    Raises:
        InputError: a package is missing; the message says how to install it.
    """
    if kind is not None and kind.package and importlib.util.find_spec(kind.package) is None:
        raise InputError(
            f"{path} is a {kind.name} picture, which needs the package {kind.package.replace('_', '-')}; "
            f"install it with: pip install 'sage-ad[{EXTRA}]'."
        )
    return import_module((kind or KINDS[0]).reader)


def known_formats() -> str:
    """The kinds that are read, for messages."""
    names = [kind.name for kind in KINDS]
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _head(path: str | os.PathLike[str]) -> bytes:
    if not os.path.isfile(path):
        return b""  # a pipe would keep its reader waiting
    try:
        with open(path, "rb") as stream:
            return stream.read(_HEAD)
    except (OSError, ValueError):
        return b""


def _sniffed(head: bytes) -> Kind | None:
    for start, name in _PLAIN_STARTS:
        if head.startswith(start):
            return _BY_NAME[name]
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _BY_NAME["WebP"]
    if head[128:132] == b"DICM":
        return _BY_NAME["DICOM"]
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return _BY_NAME["BMP"]
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[place : place + 4] for place in range(16, min(64, len(head)), 4))}
        if brands & {b"avif", b"avis"}:
            return _BY_NAME["AVIF"]
        if brands & _HEIF_BRANDS:
            return _BY_NAME["HEIF"]
    return None
