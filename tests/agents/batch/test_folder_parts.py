"""Which pictures of a folder become parts of a batch: all of them, each page, and each linked folder once."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sage_ad.agents.batch.manifest import read_parts
from sage_ad.vlm.errors import InputError


def plate(path: Path, level: int = 120) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (40, 32), level).save(path, "JPEG" if path.suffix in (".jfif", ".jpe") else None)
    return path


def test_pictures_of_every_ending_are_parts_and_the_rest_is_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.jfif", "c.jpe"):
        plate(tmp_path / name)
    (tmp_path / "d.heic").write_bytes(b"x")
    (tmp_path / "readme.txt").write_text("x")
    (tmp_path / "below").mkdir()
    said: list[str] = []
    parts = read_parts(tmp_path, say=said.append)
    assert [Path(part.image).name for part in parts] == ["a.png", "b.jfif", "c.jpe", "d.heic"]
    assert said == [
        "1 file is no picture and was left out: readme.txt.",
        "1 folder was not entered: below. Use --recursive to enter them.",
    ]


def test_each_page_is_a_part_with_a_key_of_its_own(tmp_path: Path) -> None:
    pages = [Image.new("L", (40, 32), level) for level in (10, 20, 30)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    parts = read_parts(tmp_path, references=[tmp_path / "stack.tif"])
    assert [part.image for part in parts] == [f"{tmp_path}/stack.tif#page={number}" for number in (1, 2, 3)]
    assert len({part.key for part in parts}) == 3
    assert parts[0].references == tuple(part.image for part in parts)
    before = {part.key for part in parts}
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=[*pages[1:], pages[0]])
    assert not before & {part.key for part in read_parts(tmp_path)}  # a replaced file is new work


def test_linked_folders_are_entered_once(tmp_path: Path) -> None:
    plate(tmp_path / "parts" / "a.png")
    plate(tmp_path / "real" / "bad.png")
    for name in ("line2", "line3"):
        (tmp_path / "parts" / name).symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "parts")
    parts = read_parts(tmp_path / "parts", recursive=True)
    assert [Path(part.image).relative_to(tmp_path).as_posix() for part in parts] == [
        "parts/a.png",
        "parts/line2/bad.png",
    ]


def test_a_folder_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"holds no picture .* left out: a\.txt"):
        read_parts(tmp_path)
