"""Small pictures and masks from which the tests build data set trees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, size: tuple[int, int] = (40, 30), value: int = 120, **save: object) -> Path:
    """Writes a small grey picture (width, height) and gives its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path, **save)
    return path


def mask(path: Path, box: tuple[int, int, int, int], size: tuple[int, int] = (40, 30), value: int = 255) -> Path:
    """Writes a mask with one filled box."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((size[1], size[0]), np.uint8)
    values[box[1] : box[3], box[0] : box[2]] = value
    Image.fromarray(values).save(path)
    return path


def disc(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    """Writes a mask with a disc in its middle: no filled box."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[: size[1], : size[0]]
    inside = (rows - size[1] / 2) ** 2 + (columns - size[0] / 2) ** 2 < (min(size) / 3) ** 2
    Image.fromarray(inside.astype(np.uint8) * 255).save(path)
    return path
