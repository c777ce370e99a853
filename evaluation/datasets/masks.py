"""Masks of any kind as one boolean array, and where on the part they lie, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage_ad.evaluation.datasets.sample import Sample
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.places import PLACES

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from PIL import Image

LOSSY = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".webp"})
"""Endings of masks whose zeros may have been blurred by compression, so that half of the range is the border."""

MOST = 0.9
"""A mask that marks more of a picture than this marks no defect; nor does one of half a picture and its whole frame."""

_CLASSES = 16
"""A mask with more different values than this holds no class numbers, but a soft or noisy edge."""
_NOISE = 16
_ORIENTATION = 0x0112


def load_mask(sample: Sample, size: tuple[int, int] | None = None) -> np.ndarray | None:
    """The union of a sample's masks, or its boxes filled.

    Any non-zero pixel counts (VisA's masks hold class numbers, not 255), but for the noise of compression: of soft and
    noisy masks the upper half of the range. A mask drawn in the opacity alone is read from it. A mask of another size
    than the image is scaled; a pixel counts if any part of it was marked, so that small defects survive. A mask stored on
    its side beside an image that EXIF turns upright is turned with it.

    Args:
        sample: the record.
        size: width and height of the upright image (`image.size`); None keeps the size of the first mask.

    Returns:
        Boolean array (H, W), or None when the set marks nothing on this image.

    Raises:
        InputError: a mask cannot be read, or boxes are to be filled and no size is given.
    """
    import numpy as np

    union: np.ndarray | None = None
    for path in sample.masks:
        mask, size = _read_mask(path, size, sample.image)
        union = mask if union is None else union | mask
    if union is None and sample.boxes:
        if size is None:
            raise InputError(f"{sample.image} is annotated with boxes only; give the size of the image to fill them.")
        union = np.zeros((size[1], size[0]), dtype=bool)
        for x0, y0, x1, y1 in sample.boxes:
            left, top = max(0, int(x0)), max(0, int(y0))
            union[top : max(top + 1, int(np.ceil(y1))), left : max(left + 1, int(np.ceil(x1)))] = True
    return union


def _read_mask(path: Path, size: tuple[int, int] | None, image: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """One mask as a boolean array of `size` (width, height), and that size."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as stored:
            values = _drawn(ImageOps.exif_transpose(stored))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"The mask {path} cannot be read ({reason}); copy it again or remove it.") from None
    marked = _marked(values, lossy=path.suffix.lower() in LOSSY)
    if size is None:
        return marked, (marked.shape[1], marked.shape[0])
    if marked.shape != (size[1], size[0]):
        marked = _resize(_turn_like(marked, size, image), size)
    return marked, size


def _drawn(mask: Image.Image) -> np.ndarray:
    """The values in which a mask is drawn: its colours, its opacity where the colours are all the same, else both."""
    import numpy as np

    if mask.mode not in ("LA", "RGBA", "PA"):
        return np.asarray(mask)
    values = np.asarray(mask.convert("RGBA"))
    colours, opacity = values[..., :3], values[..., 3]
    if opacity.min() == opacity.max():
        return colours
    if (colours == colours[0, 0]).all():
        return opacity
    return np.where(opacity[..., None] > 127, colours, 0)


def _marked(values: np.ndarray, *, lossy: bool) -> np.ndarray:
    """Which pixels of a mask (H, W) or (H, W, C) are marked."""
    import numpy as np

    if values.dtype == bool:
        return values
    top = values.max()
    levels = len(np.unique(values))
    if lossy and top <= 255:
        marked = values > 127
    elif levels > _CLASSES:
        marked = values > top / 2
    else:
        marked = values > (_NOISE if top > 127 and levels > 2 and not np.issubdtype(values.dtype, np.floating) else 0)
    return np.any(marked, axis=2) if marked.ndim == 3 else marked


def check_masks(sample: Sample) -> None:
    """Refuses masks that cannot be meant as they are.

    Raises:
        InputError: a mask cannot be read, has other proportions than the picture, or marks nearly all of it.
    """
    from sage_ad.vlm.images import stored_size

    width, height = stored_size(sample.image)
    for path in sample.masks:
        mask, size = _read_mask(path, None, sample.image)
        shapes = (size, size[::-1]) if _quarter(sample.image) else (size,)
        if not any(_same_shape(shape, (width, height)) for shape in shapes):
            raise InputError(
                f"the mask has {size[0]} x {size[1]} pixels, which are not the proportions of its image ({width} x {height}); "
                "save it in the size of the image"
            )
        if sample.mask_kind != "box" and is_everything(mask):
            raise InputError(
                f"the mask marks {100 * mask.mean():.0f} % of the image, as inverted masks do; save it with the defect in white"
            )


def _same_shape(mask: tuple[int, int], image: tuple[int, int]) -> bool:
    """Whether two sizes have the same proportions but for the rounding of a pixel."""
    (width, height), (full_width, full_height) = mask, image
    scale = max(width / full_width, height / full_height)
    return abs(full_width * scale - width) <= max(1, 0.02 * width) and abs(full_height * scale - height) <= max(
        1, 0.02 * height
    )


def upright_size(image: Path) -> tuple[int, int]:
    """Width and height of a picture as `load_image` gives it, from its header."""
    from sage_ad.vlm.images import stored_size

    width, height = stored_size(image)
    return (height, width) if _quarter(image) else (width, height)


def _quarter(image: Path) -> int | None:
    """The EXIF orientation of a picture that must be turned by a quarter, as a camera noted it; None for others."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(image) as picture:
            orientation = picture.getexif().get(_ORIENTATION, 1)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return None
    return orientation if orientation in (5, 6, 7, 8) else None


def is_everything(mask: np.ndarray) -> bool:
    """Whether a mask (H, W) marks so much that it must be inverted: nearly all, or most and the whole frame."""
    import numpy as np

    share = mask.mean()
    frame = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return bool(share > MOST or (share > 0.5 and frame.mean() > 0.95))


def _turn_like(marked: np.ndarray, size: tuple[int, int], image: Path) -> np.ndarray:
    """Turns a mask that was drawn on the stored, unturned image the way that EXIF turns the image."""
    import numpy as np
    from PIL import Image, ImageOps

    height, width = marked.shape
    lies = (width - height) * (size[0] - size[1]) < 0
    orientation = _quarter(image) if lies else None
    if orientation is None:
        return marked
    carrier = Image.fromarray(marked.astype(np.uint8) * 255)
    carrier.getexif()[_ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(carrier)) > 0


def _resize(marked: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scales a mask; a pixel of the result is marked if any pixel that it covers was."""
    import numpy as np
    from PIL import Image

    picture = Image.fromarray(marked.astype(np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BOX)) > 0


def places_of_mask(mask: np.ndarray, share: float = 0.2) -> list[str]:
    """Cells of the 3 x 3 grid that hold the defect, the fullest first.

    Args:
        mask: boolean (H, W).
        share: a cell belongs to it if it holds at least this share of the marked area; the fullest always does.

    Returns:
        Words of `sage_ad.vlm.places.PLACES`; empty for an empty mask.
    """
    import numpy as np

    counts = cell_counts(mask)
    if not counts.any():
        return []
    area = counts / counts.sum()
    order = np.argsort(-area, kind="stable")
    return [PLACES[i] for i in order if area[i] >= min(share, area[order[0]])]


def cell_counts(mask: np.ndarray) -> np.ndarray:
    """(9,) marked pixels in each cell of the 3 x 3 grid, row by row."""
    import numpy as np

    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    cells = np.minimum(2, 3 * rows // height) * 3 + np.minimum(2, 3 * columns // width)
    return np.bincount(cells, minlength=9)


def places_of_sample(sample: Sample) -> list[str]:
    """`places_of_mask` of a sample's masks or boxes; empty when it has none."""
    size = None
    if sample.boxes and not sample.masks:
        size = upright_size(sample.image)
    mask = load_mask(sample, size)
    return places_of_mask(mask) if mask is not None else []


def place_of_sample(sample: Sample) -> str | None:
    """Where the defect of a sample lies; None when the set does not mark it."""
    places = places_of_sample(sample)
    return places[0] if places else None


def is_box_like(mask: np.ndarray) -> bool | None:
    """Whether a mask is made of filled upright boxes, and so no pixel masks; None if it is too small to tell.

    The union of n boxes has at most 2n - 1 different rows and columns; a drawn outline changes with nearly every one.
    """
    import numpy as np

    rows = mask[mask.any(axis=1)]
    columns = mask.T[mask.any(axis=0)]
    if len(rows) < 12 or len(columns) < 12:
        return None
    return bool(len(np.unique(rows, axis=0)) <= len(rows) / 4 and len(np.unique(columns, axis=0)) <= len(columns) / 4)
