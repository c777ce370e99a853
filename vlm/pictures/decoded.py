"""What every reader returns, and how its values become upright 8-bit RGB."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from sage_ad.vlm.pictures.brightness import Brightness


@dataclass
class Decoded:
    """A decoded picture: either `image`, of 8 bits, or `values`, of more.

    Attributes:
        image: any mode of 8 bits.
        values: (H, W) or (H, W, 3), numbers of any type.
        inverted: whether the smallest of `values` is white.
        orientation: how the picture must be turned (EXIF and TIFF numbers, 1 to 8).
        full: range that the file states for `values`.
        notes: sentences about what was left out or assumed.
    """

    image: Image.Image | None = None
    values: np.ndarray | None = None
    inverted: bool = False
    orientation: int = 1
    full: tuple[float, float] | None = None
    notes: list[str] = field(default_factory=list)

    def to_rgb(self, brightness: Brightness | None) -> Image.Image:
        """Upright 8-bit RGB; `brightness` is needed for `values`."""
        if self.image is not None:
            return turned(rgb(self.image), self.orientation)
        assert self.values is not None
        assert brightness is not None
        grey = brightness.to_8_bit(self.values)
        return turned(Image.fromarray(255 - grey if self.inverted else grey).convert("RGB"), self.orientation)


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """A picture turned or mirrored as the EXIF or TIFF number of its orientation says."""
    method = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(orientation)
    return image if method is None else image.transpose(method)


def rgb(image: Image.Image) -> Image.Image:
    """Any mode of 8 bits to RGB; transparent pixels are laid over white.

    Opacity of 0 everywhere is a channel that nobody filled, as in 32-bit bitmaps of cameras, and is left out.
    """
    if image.mode == "P" or image.mode == "1":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if "transparency" in image.info and image.mode in ("L", "RGB"):
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() == (0, 0):
            return image.convert("RGB")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")
