"""Files written whole or not at all."""

import os

import pytest

from sage_ad.vlm.files import safe_name, write_whole


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_whole(path, "old")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError):
        write_whole(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["../../etc/passwd", ".bashrc", "a/b\\c.md", "x" * 300, "<b>.txt", "…"])
def test_names_become_harmless(name: str) -> None:
    made = safe_name(name)
    assert made
    assert not made.startswith(".")
    assert not set(made) & set('/\\<>:"|?*')
    assert len(made) <= 80
