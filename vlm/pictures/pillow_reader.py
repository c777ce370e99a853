"""Pictures that Pillow decodes; 16-bit colour, of which Pillow keeps 8 bits, goes through imagecodecs where it is there."""

from __future__ import annotations

import importlib.util
import re
import struct
import threading
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.pictures.decoded import Decoded
from sage_ad.vlm.pictures.formats import EXTRA
from sage_ad.vlm.pictures.pages import Page

# Only formats that Pillow decodes by itself: EPS, for one, would start an outside program on a user's file.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000", "TGA", "AVIF")
_WARNING_FILTERS = threading.Lock()
_FEW_LEVELS = 64
ORIENTATION = 0x0112
"""EXIF tag."""


class TooLarge(Exception):
    """Pillow's own alarm: the header claims far too many pixels."""


def open_picture(source: Path | BinaryIO, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Opens a picture without decoding it."""
    # The list of warning filters is shared by all threads, so only one at a time may swap it.
    with _WARNING_FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(source, formats=formats)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise TooLarge from None


def is_deep(image: Image.Image) -> bool:
    """Whether an opened picture keeps more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def pages(path: Path) -> list[Page]:
    """Sizes of the pictures in a file, from its headers."""
    with open_picture(path) as image:
        # A phone's JPEG may hold a preview or a depth map behind the picture; the first is the picture by definition.
        count = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
        if image.format == "PPM":
            _check_single(path, image)
        return [Page(image.size, is_deep(image) or _has_16_bit_colour(path, image))] * count


def read(path: Path, page: int) -> Decoded:
    """Decodes one picture of a file."""
    # Given a name, Pillow maps uncompressed files into memory, and scrambles TIFFs that lie on their side (12.3).
    with path.open("rb") as stream, open_picture(stream) as image:
        if page:
            image.seek(page)
        notes = []
        if image.format == "MPO":
            notes.append(f"{path.name}: the first of {getattr(image, 'n_frames', 1)} pictures in this JPEG was taken.")
        # Pillow turns TIFFs by itself when it decodes them.
        orientation = 1 if image.format == "TIFF" else _orientation(image, notes)
        if _has_16_bit_colour(path, image):
            decoded = _colour_of_16_bits(path, image)
        else:
            image.load()
            if is_deep(image):
                # Pillow stretches the values of a PPM to 16 bits, from the maximum that its header states.
                full = (0.0, 65535.0) if image.format == "PPM" and image.mode == "I" else None
                decoded = Decoded(values=np.asarray(image), full=full)
            else:
                decoded = Decoded(image=image.copy())
        decoded.orientation, decoded.notes = orientation, notes
        return decoded


def _check_single(path: Path, image: Image.Image) -> None:
    """Refuses Netpbm pictures behind one another in a file, of which Pillow shows the first."""
    assert isinstance(image, ImageFile.ImageFile)
    codec, _, offset, details = image.tile[0]
    deep = details[1] > 255 if isinstance(details, tuple) else "16" in (details or "")
    row = (image.width + 7) // 8 if image.mode == "1" else image.width * len(image.getbands()) * (2 if deep else 1)
    with path.open("rb") as stream:
        stream.seek(offset + row * image.height)
        if codec != "ppm_plain" and re.match(rb"\s*P[1-7]\s", stream.read(64)):
            raise InputError(f"{path} holds several pictures behind one another; save each as a file of its own.")


def _orientation(image: Image.Image, notes: list[str]) -> int:
    """How the camera noted that the picture must be turned; notes that cannot be read are no reason to refuse it."""
    try:
        with warnings.catch_warnings(record=True):
            found = image.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error) as error:
        reason = " ".join(str(error).split())[:60] or type(error).__name__
        notes.append(f"The camera's notes (EXIF) are damaged ({reason}), so the picture is not turned.")
        return 1
    if found not in range(1, 9):
        notes.append(f"The orientation {found!r} (EXIF) does not exist, so the picture is not turned.")
        return 1
    return int(found)


def _has_16_bit_colour(path: Path, image: Image.Image) -> bool:
    """Whether the file has 16 bits a channel in colour or with transparency, of which Pillow would keep the upper 8."""
    if image.format == "PNG":
        with path.open("rb") as stream:
            head = stream.read(26)
        return len(head) == 26 and head[24] == 16 and head[25] in (2, 4, 6)
    return image.format == "JPEG2000" and image.mode not in ("L", "1") and not is_deep(image) and _bits_of_jp2(path) > 8


def _bits_of_jp2(path: Path) -> int:
    """Bits a channel, from the SIZ segment of the code stream (ISO 15444-1, A.5.1); 8 where it is not found."""
    with path.open("rb") as stream:
        head = stream.read(65536)
    start = head.find(b"\xff\x4f\xff\x51")
    depth = head[start + 42 : start + 43]
    return (depth[0] & 0x7F) + 1 if start >= 0 and depth else 8


def _colour_of_16_bits(path: Path, image: Image.Image) -> Decoded:
    if importlib.util.find_spec("imagecodecs"):
        import imagecodecs

        decode = imagecodecs.png_decode if image.format == "PNG" else imagecodecs.jpeg2k_decode
        values = decode(path.read_bytes())
        return Decoded(values=without_alpha(values, _top(image, path)))
    image.load()
    plain = np.asarray(image.convert("RGB"))
    if int(np.percentile(plain, 99.9)) < _FEW_LEVELS:
        raise InputError(
            f"{path} has 16-bit colour of which few upper bits are used; read it with all of its bits after: "
            f"pip install 'sage-ad[{EXTRA}]'."
        )
    return Decoded(image=image.copy())


def _top(image: Image.Image, path: Path) -> float:
    return 65535.0 if image.format == "PNG" else 2.0 ** _bits_of_jp2(path) - 1


def without_alpha(values: np.ndarray, top: float) -> np.ndarray:
    """Grey or colour of an array (H, W, C) whose last of 2 or 4 channels is opacity; transparent pixels are white.

    Opacity of 0 everywhere is left out, as in `sage_ad.vlm.pictures.decoded.rgb`.
    """
    if values.ndim == 2 or values.shape[2] in (1, 3):
        return values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    opacity = values[..., -1:].astype(np.float64) / top
    if (opacity >= 1).all() or not opacity.any():
        values = values[..., :-1]
    else:
        values = np.rint(values[..., :-1] * opacity + top * (1 - opacity)).astype(values.dtype)
    return values[..., 0] if values.shape[2] == 1 else values
