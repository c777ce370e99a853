"""One range of brightness for a part and its references: what a camera stores must not decide what can be seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.images import in_range, load_image, shared_brightness
from sage_ad.vlm.pictures.brightness import common_brightness, values_of


def surface(seed: int) -> np.ndarray:
    """A textured surface of 8 bits, as floats of whole grey levels."""
    random = np.random.default_rng(seed)
    return np.clip(np.rint(110 + 40 * np.sin(np.arange(64) / 5)[:, None] + random.normal(0, 18, (64, 64))), 0, 255)


def with_hot_pixel(values: np.ndarray) -> np.ndarray:
    stored = (values * 16).astype(np.uint16)
    stored[3, 3] = 65535
    return stored


STORED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "12 bits in 16": lambda values: (values * 16).astype(np.uint16),
    "12 bits in 16, colour": lambda values: np.repeat((values * 16).astype(np.uint16)[..., None], 3, axis=2),
    "12 bits in 16 with a hot pixel": with_hot_pixel,
    "10 bits in 16": lambda values: (values * 4).astype(np.uint16),
    "signed": lambda values: ((values - 128) * 8).astype(np.int16),
    "32-bit counts": lambda values: (values * 1000 + 50_000).astype(np.uint32),
    "a sliver of 16 bits": lambda values: (values * 8 + 30_000).astype(np.uint16),
    "flat-field corrected": lambda values: (values / np.median(values)).astype(np.float32),
    "floats around 1 with little contrast": lambda values: (1 + (values - 128) / 5000).astype(np.float32),
    "small floats": lambda values: (values * 1e-9).astype(np.float64),
}


@pytest.mark.parametrize("name", STORED)
def test_a_part_and_its_references_keep_their_grey_levels_and_are_read_alike(tmp_path: Path, name: str) -> None:
    part, good = surface(1), surface(2)
    spot = part.copy()
    spot[30:34, 30:34] += 40  # the defect
    paths = [tmp_path / f"{label}.tif" for label in ("part", "good", "spot")]
    for path, values in zip(paths, (part, good, spot), strict=True):
        tifffile.imwrite(path, STORED[name](values))
    brightness = shared_brightness(paths)
    assert brightness is not None
    read = [np.asarray(load_image(path, brightness=brightness))[..., 0].astype(float) for path in paths]
    kept = np.ones(part.shape, bool)
    kept[3, 3] = "hot" not in name
    for values, original in zip(read, (part, good, spot), strict=True):
        # One and the same line from the grey levels of 8 bits, whatever is in the picture, to half a level.
        slope, start = np.polyfit(part[kept], read[0][kept], 1)
        assert np.abs(values - (start + slope * original))[kept].max() < 2
        assert slope > 0.7
    assert (read[2] - read[0])[30:34, 30:34].mean() > 28


def test_white_is_zero_is_inverted_in_every_depth(tmp_path: Path) -> None:
    grey = surface(1).astype(np.uint8)
    for depth in (np.uint8, np.uint16):
        top = np.iinfo(depth).max
        tifffile.imwrite(tmp_path / "p.tif", top - grey.astype(depth) * (top // 255), photometric="miniswhite")
        assert (np.asarray(load_image(tmp_path / "p.tif"))[..., 0] == grey).all()


def test_a_reference_of_8_bits_is_not_stretched_and_neither_is_the_part(tmp_path: Path) -> None:
    grey = np.full((40, 40), 100, np.uint8)
    grey[5:20] = 110  # too little contrast for 16 bits by itself
    Image.fromarray(grey).save(tmp_path / "good.png")
    tifffile.imwrite(tmp_path / "part.tif", grey.astype(np.uint16) * 257)
    shared = shared_brightness([tmp_path / "part.tif", tmp_path / "good.png"])
    assert shared is not None
    assert (np.asarray(load_image(tmp_path / "part.tif", brightness=shared))[..., 0] == grey).all()
    assert shared_brightness([tmp_path / "good.png"]) is None


def test_parts_of_one_lot_share_a_range_with_their_references() -> None:
    good = [values_of(STORED["flat-field corrected"](surface(seed))) for seed in range(5)]
    ranges = {
        (found.low, found.high)
        for seed in range(20, 40)
        for found in [common_brightness([values_of(STORED["flat-field corrected"](surface(seed))), *good])]
    }
    assert len(ranges) == 1  # the references are encoded once for all


def test_few_bright_pixels_on_one_value_are_not_clipped_away() -> None:
    values = np.full((100, 100), 1000, np.uint16)
    values[50, 50:53] = 3000
    read = common_brightness([values_of(values)]).to_8_bit(values)
    assert read[50, 51] > read[0, 0]


def test_values_too_near_to_each_other_for_a_range_are_one_value() -> None:
    values = np.zeros((20, 20))
    values[:10] = 5e-324
    assert np.ptp(common_brightness([values_of(values)]).to_8_bit(values)) == 0


def test_floats_and_whole_numbers_have_no_range_in_common(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", surface(1).astype(np.float32))
    tifffile.imwrite(tmp_path / "b.tif", surface(1).astype(np.uint16))
    with pytest.raises(InputError, match="save the part and its references in the same way"):
        shared_brightness([tmp_path / "a.tif", tmp_path / "b.tif"])


def test_a_changed_file_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, (surface(1) * 16).astype(np.uint16))
    first = shared_brightness([path])
    image = load_image(path)
    assert in_range(image, path, first) is image
    tifffile.imwrite(path, (np.tile(surface(1), (2, 1)) * 256).astype(np.uint16))
    second = shared_brightness([path])
    assert first is not None
    assert second is not None
    assert (first.high, second.high) == (4095, 65535)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e9))
def test_every_range_holds_its_values_and_keeps_their_order(low: float, span: float) -> None:
    values = np.linspace(low, low + span, 400).reshape(20, 20)
    brightness = common_brightness([values_of(values)])
    assert brightness.low <= values.min() < values.max() <= brightness.high
    read = brightness.to_8_bit(values).astype(int)
    assert (np.diff(read.ravel()) >= 0).all()
    assert np.ptp(read) >= 60
