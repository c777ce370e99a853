"""TIFF: headers by tifffile; pixels of 8 bits by Pillow, others by tifffile, which keeps all of their bits."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import COMPRESSION_INFO

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.pictures import pillow_reader
from sage_ad.vlm.pictures.decoded import Decoded
from sage_ad.vlm.pictures.formats import EXTRA
from sage_ad.vlm.pictures.pages import Page

if TYPE_CHECKING:
    from tifffile import TiffPage

MAX_CHANNELS = 32
_REDUCED = 1 | 4
"""Bits of NewSubfileType: a smaller copy of another page, a transparency mask."""
_DEFLATE = (8, 32946)
WEBP = 50001
"""Known to Pillow, and not to the library behind it."""


def pages(path: Path) -> list[Page]:
    """Sizes of the pages, from their headers."""
    with _opened(path) as tiff:
        first = tiff.pages.first
        found = [
            Page((page.imagewidth, page.imagelength), _is_deep(page), bool(page.subfiletype & _REDUCED))
            for page in (tiff.pages[number] for number in range(len(tiff.pages)))
        ]
        # ImageJ writes one header for a large stack, volumes have one for all of their slices.
        hidden = int((tiff.imagej_metadata or {}).get("images", 1)) if tiff.is_imagej else first.imagedepth
        if hidden > len(found):
            raise InputError(
                f"{path} is a stack of {hidden} pictures of {first.imagewidth} x {first.imagelength} pixels behind one header "
                "(ImageJ, or a volume); save it as an image sequence."
            )
        return found


def read(path: Path, page: int) -> Decoded:
    """Decodes one page."""
    with _opened(path) as tiff:
        header = tiff.pages[page]
        if _is_deep(header) or (header.samplesperpixel == 2 and header.photometric in (0, 1)):
            return _decoded(path, header, page)
        if header.compression not in COMPRESSION_INFO or header.compression == WEBP:
            decoded = _decoded(path, header, page)
            assert decoded.values is not None
            grey = decoded.values
            decoded.image, decoded.values = Image.fromarray(255 - grey if decoded.inverted else grey), None
            return decoded
        decoded = pillow_reader.read(path, page)
        decoded.notes += _extra_channels(path, header)
        return decoded


def _opened(path: Path) -> Any:
    import logging

    from tifffile import TiffFile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is said in our own sentence
    return TiffFile(path)


def _is_deep(page: Any) -> bool:
    return page.bitspersample > 8 or page.sampleformat == 3 or page.sampleformat == 2 or page.samplesperpixel > 4


def _decoded(path: Path, page: TiffPage, number: int) -> Decoded:
    """Decodes a page with all of its bits."""
    bits, photometric = page.bitspersample, int(page.photometric)
    kind = {2: "signed ", 3: "float "}.get(int(page.sampleformat or 1), "")
    if photometric not in (0, 1, 2) or page.samplesperpixel > MAX_CHANNELS or int(page.sampleformat or 1) > 3:
        raise InputError(
            f"{path} is a TIFF of {page.samplesperpixel} channels of {bits} {kind}bits in the colour model "
            f"{getattr(page.photometric, 'name', photometric)}, which is not read; save it as grey or RGB."
        )
    _check_deflated(path, page)
    try:
        values = page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        if bits == 16 and not kind and page.samplesperpixel == 1:  # which Pillow keeps whole
            decoded = pillow_reader.read(path, number)
            decoded.inverted = photometric == 0
            return decoded
        raise InputError(
            f"{path} is a TIFF of {bits} {kind}bits compressed with {getattr(page.compression, 'name', page.compression)}; "
            f"read it after: pip install 'sage-ad[{EXTRA}]'."
        ) from None
    if values.ndim == 3 and page.planarconfig == 2 and page.samplesperpixel > 1:
        values = np.moveaxis(values, 0, -1)
    values = values.reshape(page.imagelength, page.imagewidth, -1)
    count, notes = values.shape[2], _extra_channels(path, page)
    top = 2.0**bits - 1 if not kind else 1.0
    if count in (2, 4) and page.extrasamples and page.extrasamples[-1] in (1, 2):
        values = pillow_reader.without_alpha(values, top)
    elif count > 3 or count == 2:
        values = values[..., : 3 if count > 3 else 1]
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    tag = page.tags.get(274)
    orientation = int(tag.value) if tag is not None and tag.value in range(1, 9) else 1
    # 8-bit values (of many channels) keep their brightness beside ordinary 8-bit pictures.
    full = (0.0, 255.0) if bits == 8 and not kind else None
    return Decoded(values=values, inverted=photometric == 0, orientation=orientation, full=full, notes=notes)


def _extra_channels(path: Path, page: Any) -> list[str]:
    """A sentence where channels beyond grey or RGB are left out (opacity and CMYK apart)."""
    shown = 3 if page.photometric == 2 or page.samplesperpixel > 4 else 1
    if page.photometric not in (0, 1, 2):
        return []
    extra = page.samplesperpixel - shown
    opacity = extra == 1 and bool(page.extrasamples) and page.extrasamples[-1] in (1, 2)
    if extra < 1 or opacity:
        return []
    return [
        f"{path.name} has {page.samplesperpixel} channels; the first {'three were' if shown == 3 else 'was'} inspected and "
        f"{extra} {'were' if extra > 1 else 'was'} left out: save the others as pictures of their own."
    ]


def _check_deflated(path: Path, page: Any) -> None:
    """Refuses strips that unpack to more than the header says, before the plain-Python codec unpacks them whole."""
    if page.compression not in _DEFLATE:
        return
    rows = page.rowsperstrip if not page.is_tiled else page.tilelength
    width = page.imagewidth if not page.is_tiled else page.tilewidth
    expected = rows * width * max(1, page.samplesperpixel) * max(1, page.bitspersample // 8) + 65536
    with path.open("rb") as stream:
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            stream.seek(offset)
            if len(zlib.decompressobj().decompress(stream.read(count), expected + 1)) > expected:
                raise InputError(f"{path} unpacks to more than its header says; save or copy the picture again.")
