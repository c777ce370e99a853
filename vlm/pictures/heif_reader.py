"""HEIF and HEIC (phones), by pillow-heif; 10 and 12 bits come scaled to 8 by the library, from the range of the format."""

from __future__ import annotations

from pathlib import Path

from sage_ad.vlm.pictures.decoded import Decoded
from sage_ad.vlm.pictures.pages import Page


def pages(path: Path) -> list[Page]:
    """Sizes of the pictures; all but the one that the file names as its main one count as copies if they are smaller."""
    import pillow_heif

    return [Page(image.size) for image in pillow_heif.open_heif(path)]


def read(path: Path, page: int) -> Decoded:
    """Decodes one picture, upright as the library turns it."""
    import pillow_heif

    image = pillow_heif.open_heif(path)[page].to_pillow()
    image.info.pop("exif", None)  # it is upright already
    return Decoded(image=image)
