"""DICOM and DICONDE (radiographs of parts), by pydicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.pictures.decoded import Decoded
from sage_ad.vlm.pictures.pages import Page


def pages(path: Path) -> list[Page]:
    """One page a frame, all of one size."""
    header = _read(path, pixels=False)
    size = (int(header.Columns), int(header.Rows))
    return [Page(size, int(header.BitsAllocated) > 8)] * max(1, int(header.get("NumberOfFrames") or 1))


def read(path: Path, page: int) -> Decoded:
    """Decodes one frame; values are those that the file means (rescaled), MONOCHROME1 is white at its smallest."""
    from pydicom.pixels import apply_rescale, pixel_array

    header = _read(path, pixels=True)
    try:
        values = pixel_array(header, index=page)
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{path} is a DICOM picture that cannot be decoded ({reason}); save it uncompressed."
        ) from None
    kind = str(header.PhotometricInterpretation)
    if values.ndim == 3:
        return _of_8_bits(path, values) if values.dtype == np.uint8 else Decoded(values=values)
    if kind == "PALETTE COLOR":
        raise InputError(f"{path} is a DICOM picture with a palette, which is not read; save it as grey or RGB.")
    rescaled = apply_rescale(values, header)
    full = None
    if rescaled is values or np.array_equal(rescaled, values):
        rescaled = values
        if not int(header.get("PixelRepresentation", 0)):
            full = (0.0, 2.0 ** int(header.BitsStored) - 1)
    if int(header.BitsAllocated) <= 8 and full == (0.0, 255.0):
        from PIL import Image, ImageOps

        grey = Image.fromarray(values.astype(np.uint8))
        return Decoded(image=ImageOps.invert(grey) if kind == "MONOCHROME1" else grey)
    return Decoded(values=rescaled, inverted=kind == "MONOCHROME1", full=full)


def _of_8_bits(path: Path, values: np.ndarray) -> Decoded:
    from PIL import Image

    if values.shape[2] != 3:
        raise InputError(f"{path} is a DICOM picture of {values.shape[2]} channels; save it as grey or RGB.")
    return Decoded(image=Image.fromarray(values))


def _read(path: Path, *, pixels: bool) -> Any:
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        header = pydicom.dcmread(path, stop_before_pixels=not pixels)
    except InvalidDicomError:
        raise InputError(f"{path} is no DICOM file; give the file of a picture.") from None
    if "Rows" not in header or "Columns" not in header:
        raise InputError(f"{path} is a DICOM file without a picture; give the file of a picture.")
    return header
