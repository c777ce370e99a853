"""Pictures that users really have: read right, or refused with one sentence that names the file."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.images import list_images, load_image


@pytest.fixture
def grey() -> np.ndarray:
    """An 8-bit picture, 48 high and 64 wide, bright at the upper left, so that turning it shows."""
    rows, columns = np.mgrid[0:48, 0:64]
    return (255 - 2 * rows - 2 * columns).astype(np.uint8)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def assert_refused(path: Path, word: str) -> None:
    with pytest.raises(InputError, match=word) as caught:
        load_image(path)
    message = str(caught.value)
    assert path.name[:40] in message
    assert "\n" not in message
    assert message.endswith(".")


class TestReadsRight:
    def test_grey_of_8_bits_is_kept_exactly(self, tmp_path: Path, grey: np.ndarray) -> None:
        image = load_image(saved(tmp_path / "part.png", Image.fromarray(grey)))
        assert image.mode == "RGB"
        assert (np.asarray(image) == grey[..., None]).all()

    @pytest.mark.parametrize("ending", ["png", "tif"])
    def test_grey_of_16_bits_is_scaled_and_not_cut_off(self, tmp_path: Path, grey: np.ndarray, ending: str) -> None:
        deep = Image.fromarray(grey.astype(np.uint16) * 257)
        image = load_image(saved(tmp_path / f"part.{ending}", deep))
        assert (np.asarray(image)[..., 0] == grey).all()

    def test_a_12_bit_camera_in_16_bits_is_not_black(self, tmp_path: Path, grey: np.ndarray) -> None:
        image = load_image(saved(tmp_path / "part.png", Image.fromarray(grey.astype(np.uint16) * 16)))
        assert np.abs(np.asarray(image)[..., 0].astype(int) - grey).max() <= 1

    def test_float_tiff_between_0_and_1(self, tmp_path: Path, grey: np.ndarray) -> None:
        image = load_image(saved(tmp_path / "part.tiff", Image.fromarray((grey / 255).astype(np.float32))))
        assert np.abs(np.asarray(image)[..., 0].astype(int) - grey).max() <= 1

    def test_palette_and_its_colours(self, tmp_path: Path) -> None:
        image = Image.new("RGB", (32, 32), (200, 30, 90))
        read = load_image(saved(tmp_path / "part.png", image.convert("P", palette=Image.Palette.ADAPTIVE)))
        assert np.abs(np.asarray(read, int)[0, 0] - (200, 30, 90)).max() <= 3

    def test_cmyk_jpeg(self, tmp_path: Path) -> None:
        image = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
        red = np.asarray(load_image(saved(tmp_path / "part.jpg", image, quality=95)), int)[5, 5]
        assert red[0] > 200
        assert red[1] < 60

    def test_transparent_pixels_are_laid_over_white(self, tmp_path: Path) -> None:
        image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
        image.paste((10, 20, 30, 255), (0, 0, 16, 32))
        read = np.asarray(load_image(saved(tmp_path / "part.png", image)))
        assert tuple(read[3, 3]) == (10, 20, 30)
        assert tuple(read[3, 30]) == (255, 255, 255)

    def test_exif_orientation_is_applied(self, tmp_path: Path, grey: np.ndarray) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        stored = Image.fromarray(grey).transpose(Image.Transpose.ROTATE_90)
        image = load_image(saved(tmp_path / "part.jpg", stored, exif=exif, quality=95))
        assert image.size == (64, 48)
        assert np.abs(np.asarray(image, int)[..., 0] - grey).max() < 12

    def test_upper_case_endings_and_odd_names(self, tmp_path: Path, grey: np.ndarray) -> None:
        path = saved(tmp_path / "prüf teil №1.PNG", Image.fromarray(grey))
        assert load_image(path).size == (64, 48)
        assert load_image(str(path)).size == (64, 48)

    def test_the_wrong_ending_of_a_real_picture_does_not_matter(self, tmp_path: Path, grey: np.ndarray) -> None:
        path = saved(tmp_path / "part.jpg", Image.fromarray(grey), format="PNG")
        assert load_image(path).size == (64, 48)


class TestRefuses:
    def test_missing_path(self, tmp_path: Path) -> None:
        assert_refused(tmp_path / "nowhere.png", "no picture")

    def test_folder(self, tmp_path: Path) -> None:
        assert_refused(tmp_path, "is a folder")

    def test_empty_file(self, tmp_path: Path) -> None:
        path = tmp_path / "empty.png"
        path.touch()
        assert_refused(path, "empty")

    def test_text_with_a_picture_ending(self, tmp_path: Path) -> None:
        path = tmp_path / "note.png"
        path.write_text("this is no picture")
        assert_refused(path, "no picture that can be read")

    @pytest.mark.parametrize("ending", ["jpg", "png", "tif", "bmp"])
    def test_truncated_picture(self, tmp_path: Path, ending: str) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
        path = saved(tmp_path / f"half.{ending}", Image.fromarray(noise))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert_refused(path, r"damaged|no picture")

    @pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif", "jp2", "avif"])
    def test_a_picture_whose_end_was_never_written(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"half.{ending}"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)).save(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
        with pytest.raises(InputError, match=r"half\.\w+ (was not written whole|is)"):
            load_image(path)
        if ending in ("png", "jpg", "gif"):  # some cameras fill up the last block of the disk
            path.write_bytes(whole + bytes(4096))
            load_image(path)

    def test_a_huge_picture_is_refused_before_it_is_decoded(self, tmp_path: Path) -> None:
        path = tmp_path / "huge.png"
        path.write_bytes(_png_header(30_000, 30_000))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_refused(path, "far too many pixels|million")

    def test_a_picture_that_only_makes_pillow_warn_is_refused_too(self, tmp_path: Path) -> None:
        path = tmp_path / "large.png"
        path.write_bytes(_png_header(10_000, 9_500))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_refused(path, "million")

    def test_a_single_pixel_cannot_be_inspected(self, tmp_path: Path) -> None:
        assert_refused(saved(tmp_path / "dot.png", Image.new("RGB", (1, 1))), "1 x 1 pixels")

    def test_values_that_are_no_numbers(self, tmp_path: Path) -> None:
        values = np.full((32, 32), np.nan, np.float32)
        assert_refused(saved(tmp_path / "nan.tiff", Image.fromarray(values)), "no numbers")

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        path = tmp_path / "pipe.png"
        os.mkfifo(path)
        assert_refused(path, "no ordinary file")

    def test_names_that_no_file_can_have(self) -> None:
        for name in ("x" * 5000, "a\0b.png"):
            with pytest.raises(InputError):
                load_image(name)


class TestListImages:
    def test_sorted_and_any_case(self, tmp_path: Path, grey: np.ndarray) -> None:
        for name in ("b.JPG", "a.png", "c.Tiff"):
            saved(tmp_path / name, Image.fromarray(grey))
        (tmp_path / "notes.txt").write_text("x")
        (tmp_path / ".hidden.png").write_text("x")
        (tmp_path / "folder.png").mkdir()
        assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.JPG", "c.Tiff"]

    def test_missing_empty_and_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no folder"):
            list_images(tmp_path / "nowhere")
        with pytest.raises(InputError, match="holds no picture"):
            list_images(tmp_path)
        (tmp_path / "a.txt").write_text("x")
        with pytest.raises(InputError, match="is a file"):
            list_images(tmp_path / "a.txt")


def _png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be large and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
