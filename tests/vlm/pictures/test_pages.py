"""Files with several pictures, and folders: every picture is a part, a copy, or named; nothing is passed over."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.images import expand_references, load_image, notes_of, pages_of, scan_folder, shared_brightness


def grey(level: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.new("L", size, level)


def stack(path: Path, levels: tuple[int, ...] = (40, 120, 200)) -> Path:
    pages = [grey(level).convert("RGB") for level in levels]
    more = {"lossless": True} if path.suffix == ".webp" else {}
    pages[0].save(path, save_all=True, append_images=pages[1:], **more)
    return path


class TestPages:
    @pytest.mark.parametrize("ending", ["tif", "gif", "webp", "png", "avif"])
    def test_pages_of_one_size_are_parts_of_their_own(self, tmp_path: Path, ending: str) -> None:
        path = stack(tmp_path / f"stack.{ending}")
        with pytest.raises(InputError, match=r"holds 3 pictures; name one of them \(stack\.\w+#page=1\)"):
            load_image(path)
        pages = pages_of(path)
        assert [page.name for page in pages] == [f"stack.{ending}#page={number}" for number in (1, 2, 3)]
        levels = [np.asarray(load_image(page)).mean() for page in pages]
        assert levels == pytest.approx([40, 120, 200], abs=3)

    def test_pages_of_16_bits(self, tmp_path: Path) -> None:
        values = np.stack([np.full((20, 24), level, np.uint16) for level in (1000, 60_000)])
        tifffile.imwrite(tmp_path / "p.tif", values, photometric="minisblack")
        pages = pages_of(tmp_path / "p.tif")
        shared = shared_brightness(pages)
        dark, bright = (np.asarray(load_image(page, brightness=shared)).mean() for page in pages)
        assert (dark, bright) == pytest.approx((4, 233), abs=1)

    @pytest.mark.parametrize("thumbnail", [(32, 24), (21, 16), (8, 6)])
    def test_the_largest_of_copies_is_taken_and_said(self, tmp_path: Path, thumbnail: tuple[int, int]) -> None:
        small, large = grey(10, thumbnail), grey(200)
        small.save(tmp_path / "p.tif", save_all=True, append_images=[large])
        image = load_image(tmp_path / "p.tif")
        assert image.size == (64, 48)
        assert "page 2 of 2 was taken, the largest" in notes_of(image)[0]
        assert pages_of(tmp_path / "p.tif") == [tmp_path / "p.tif"]

    def test_a_copy_that_the_file_calls_one_is_none_whatever_its_size(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "p.tif") as tiff:
            tiff.write(np.full((48, 64), 200, np.uint8))
            tiff.write(np.full((47, 50), 10, np.uint8), subfiletype=1)
        assert np.asarray(load_image(tmp_path / "p.tif")).mean() == 200

    def test_a_smaller_picture_of_another_shape_is_a_part(self, tmp_path: Path) -> None:
        grey(10, (20, 40)).save(tmp_path / "p.tif", save_all=True, append_images=[grey(200)])
        assert len(pages_of(tmp_path / "p.tif")) == 2

    def test_a_page_that_does_not_exist(self, tmp_path: Path) -> None:
        stack(tmp_path / "p.tif")
        for number in (0, 4):
            with pytest.raises(InputError, match=f"has no page {number}; it has 3"):
                load_image(f"{tmp_path / 'p.tif'}#page={number}")

    def test_a_file_may_be_called_like_a_page(self, tmp_path: Path) -> None:
        grey(77).save(tmp_path / "p#page=2", "PNG")
        assert np.asarray(load_image(tmp_path / "p#page=2")).mean() == 77

    def test_a_stack_of_imagej_behind_one_header(self, tmp_path: Path) -> None:
        path = tmp_path / "p.tif"
        tifffile.imwrite(path, np.zeros((5, 20, 24), np.uint8), imagej=True)
        with tifffile.TiffFile(path) as tiff:
            count = len(tiff.pages)
        if count == 1:
            with pytest.raises(InputError, match="5 pictures"):
                load_image(path)
        else:
            assert len(pages_of(path)) == 5

    def test_a_volume_behind_one_header(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "p.tif", np.zeros((5, 64, 64), np.uint8), volumetric=True, tile=(1, 64, 64))
        with pytest.raises(InputError, match="a stack of 5 pictures"):
            load_image(tmp_path / "p.tif")

    def test_references_are_all_pages(self, tmp_path: Path) -> None:
        path = stack(tmp_path / "good.tif")
        assert expand_references([path]) == expand_references([tmp_path]) == pages_of(path)
        assert expand_references([pages_of(path)[1]]) == [pages_of(path)[1]]


class TestFolders:
    def names(self, folder: Path, recursive: bool = True) -> list[str]:
        return [path.relative_to(folder).as_posix() for path in scan_folder(folder, recursive=recursive).pictures]

    def test_every_ending_and_none(self, tmp_path: Path) -> None:
        for ending in ("jfif", "jpe", "J2K", "heic", "dcm", "avif", "nef"):
            (tmp_path / f"p.{ending}").write_bytes(b"x")  # its row says what is wrong
        grey(1).save(tmp_path / "scan", "PNG")  # a picture without an ending
        (tmp_path / "notes.txt").write_text("x")
        (tmp_path / "Thumbs.db").write_text("x")
        (tmp_path / "line 2").mkdir()
        found = scan_folder(tmp_path)
        expected = ["p.J2K", "p.avif", "p.dcm", "p.heic", "p.jfif", "p.jpe", "p.nef", "scan"]
        assert [path.name for path in found.pictures] == expected
        assert found.notes == [
            "1 file is no picture and was left out: notes.txt.",
            "1 folder was not entered: line 2.",
        ]
        assert scan_folder(tmp_path, recursive=True).notes == found.notes[:1]

    def test_linked_folders_are_entered_once(self, tmp_path: Path) -> None:
        parts, real = tmp_path / "parts", tmp_path / "real"
        (parts / "deep").mkdir(parents=True)
        (real / "below").mkdir(parents=True)
        for path in (parts / "a.png", parts / "deep" / "b.png", real / "c.png", real / "below" / "d.png"):
            grey(1).save(path)
        for name, target in {"line2": real, "line3": real, "self": parts, "z": parts / "deep"}.items():
            (parts / name).symlink_to(target, target_is_directory=True)
        (real / "back").symlink_to(parts, target_is_directory=True)
        (parts / "gone").symlink_to(tmp_path / "nowhere")
        found = scan_folder(parts, recursive=True)
        assert self.names(parts) == ["a.png", "deep/b.png", "line2/below/d.png", "line2/c.png"]
        assert found.notes == ["1 file is no picture and was left out: gone."]

    def test_a_linked_picture_is_a_picture(self, tmp_path: Path) -> None:
        grey(1).save(tmp_path / "a.png")
        (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
        (tmp_path / "c.png").symlink_to(tmp_path / "nowhere")
        assert self.names(tmp_path) == ["a.png", "b.png", "c.png"]  # the last gets a row with an error

    def test_a_pipe_in_a_folder_is_not_waited_for(self, tmp_path: Path) -> None:
        grey(1).save(tmp_path / "a.png")
        os.mkfifo(tmp_path / "notes")
        os.mkfifo(tmp_path / "b.png")
        assert self.names(tmp_path) == ["a.png", "b.png"]  # the last gets a row with an error

    @pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may enter every folder")
    def test_a_closed_folder_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "closed").mkdir(mode=0)
        assert "closed was not entered" in scan_folder(tmp_path, recursive=True).notes[0]
