"""Reads the pictures that users really have: any depth, mode and orientation in, upright 8-bit RGB out.

What cannot be read or cannot be inspected is refused with one sentence that names the file; nothing is guessed.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    pass


MAX_PIXELS = 80_000_000
"""Larger pictures are refused before they are decoded (an RGB copy of this many pixels takes 240 MB)."""

MIN_SIDE = 16
"""Smaller pictures hold less than one patch of the encoder in some direction, so there is nothing to compare."""

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2", ".tga")
"""Endings that `list_images` takes for pictures, in lower case (any case is accepted)."""

# Only formats that Pillow decodes by itself: EPS, for one, would start an outside program on a user's file.
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000", "TGA")
_WARNING_FILTERS = threading.Lock()

EVEN_MEDIAN = 140.0
"""Median grey value that `even_exposure` gives a picture."""

_DARKEST_MEDIAN = 20.0


def load_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> Image.Image:
    """Reads a picture as upright 8-bit RGB.

    16-bit grey is scaled by its range and not cut off, palettes and CMYK are turned into RGB, transparent pixels are
    laid over white, and the orientation noted by a camera (EXIF) is applied. Of several frames the first is taken.

    Args:
        path: file of the picture.
        max_pixels: pictures with more pixels are refused before they are decoded.
        min_side: pictures with a shorter side (in pixels) are refused.

    Returns:
        A new image of mode "RGB"; the file is closed.

    Raises:
        InputError: the file is missing, a folder, empty, no picture, damaged, too large or too small.
    """
    name = Path(path)
    _check_file(name)
    try:
        with _open(name, max_pixels) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise _too_large(name, max_pixels, f"{width} x {height} pixels")
            if min(width, height) < min_side:
                raise InputError(
                    f"{name} has only {width} x {height} pixels and cannot be inspected; "
                    f"give a picture of at least {min_side} x {min_side} pixels."
                )
            image.load()
            return _to_rgb(name, ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise InputError(f"{name} is no picture that can be read; give a PNG, JPEG, BMP, TIFF or WebP file.") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        if isinstance(error, PermissionError):
            raise InputError(f"{name} may not be read by this user; change its permissions.") from None
        raise InputError(f"{name} is damaged or cut short ({_brief(error)}); save or copy the picture again.") from None


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Pictures directly inside a folder, sorted by name, endings in any case; hidden files are left out.

    Raises:
        InputError: the folder is missing, is a file, or holds no picture.
    """
    name = Path(folder)
    if not name.exists():
        raise InputError(f"There is no folder {name}; check the path.")
    if not name.is_dir():
        raise InputError(f"{name} is a file, not a folder; give the folder that holds the pictures.")
    found = sorted(
        entry
        for entry in name.iterdir()
        if entry.suffix.lower() in ENDINGS and not entry.name.startswith(".") and entry.is_file()
    )
    if not found:
        raise InputError(f"The folder {name} holds no picture ({', '.join(ENDINGS[:4])}, ...); give another folder.")
    return found


def even_exposure(image: Image.Image) -> Image.Image:
    """The picture made brighter or darker by one factor, so that its median is the same in every picture.

    How long a camera exposed says nothing of a part, and a reference taken on another day would differ everywhere. Pictures
    whose median is below 20 are taken for parts on a black ground and brightened seven times at most.
    """
    values = np.asarray(image.convert("RGB"), np.float32)
    factor = EVEN_MEDIAN / max(float(np.median(values)), _DARKEST_MEDIAN)
    return Image.fromarray(np.clip(values * factor, 0, 255).astype(np.uint8))


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


def _open(name: Path, max_pixels: int) -> Image.Image:
    """Opens a picture without decoding it; Pillow's own size alarms become our sentence."""
    # The list of warning filters is shared by all threads, so only one at a time may swap it.
    with _WARNING_FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(name, formats=_FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise _too_large(name, max_pixels, "far too many pixels") from None


def _too_large(name: Path, max_pixels: int, size: str) -> InputError:
    return InputError(
        f"{name} has {size}, and more than {max_pixels / 1e6:g} million are not read; "
        "scale it down or cut it into tiles."
    )


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 80 else text[:77] + "..."


def _to_rgb(name: Path, image: Image.Image) -> Image.Image:
    """Any mode to 8-bit RGB, keeping the range of deep pictures and laying transparent ones over white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_to_rgb(name, np.asarray(image))
    if image.mode == "P" or image.mode == "1":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if "transparency" in image.info and image.mode in ("L", "RGB"):
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")


def _deep_to_rgb(name: Path, values: np.ndarray) -> Image.Image:
    """Grey of more than 8 bits to RGB by a fixed factor, so that a test and its reference are scaled alike."""
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{name} holds values that are no numbers (NaN or infinite); save it as 8- or 16-bit grey.")
    top = float(values.max())
    # Cameras of 12 bits store their values in 16 without stretching them; such pictures would come out nearly black.
    ranges = (1.0,) if top <= 1 else (255.0, 4095.0, 65535.0)
    full = next((limit for limit in ranges if top <= limit), top)
    grey = np.clip(np.rint(values * (255.0 / full)), 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def expand_references(paths: Iterable[Path]) -> list[Path]:
    """Files of the references: a folder stands for the pictures in it.

    Raises:
        InputError: a path does not exist, or a folder holds no picture.
    """
    from sage_ad.vlm.images import list_images

    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = list_images(path)
            if not inside:
                raise InputError(
                    f"The reference folder {path} holds no picture; name a folder of good parts, or a picture."
                )
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"The reference {path} does not exist; check the path.")
    return files
