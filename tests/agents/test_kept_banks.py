"""References made ready and kept on disk: equal to new ones, never stale, never half, never too many."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plates import plate

from sage_ad.agents import kept_banks
from sage_ad.agents.kept_banks import bank_file, keep_bank, read_bank
from sage_ad.agents.resources import Resources
from sage_ad.agents.settings import make_settings
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.evidence.encoders import PatchEncoder, PatchFeatures, load_encoder
from sage_ad.vlm.evidence.extractor import EvidenceExtractor, EvidenceSettings
from sage_ad.vlm.images import load_image


@pytest.fixture(scope="module")
def encoder() -> PatchEncoder:
    return load_encoder(device="cpu")


class Counting:
    """The real encoder, and how many pictures it was given."""

    def __init__(self, encoder: PatchEncoder) -> None:
        self.name, self.version, self.device = encoder.name, encoder.version, encoder.device
        self.size, self.offset, self.seen = encoder.size, encoder.offset, 0
        self._encoder = encoder

    def encode(self, images: Sequence[Image.Image], size: int | None = None) -> PatchFeatures:
        self.seen += len(images)
        return self._encoder.encode(images, size)


@pytest.fixture
def good(tmp_path: Path) -> list[Path]:
    return [plate(tmp_path / "good" / f"{number}.png", False, number) for number in range(4)]


def process(encoder: PatchEncoder, **settings: object) -> tuple[Resources, Counting]:
    """What a new process has: nothing in memory."""
    counting = Counting(encoder)
    return Resources(make_settings(settings), extractor=EvidenceExtractor(encoder=counting)), counting


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_next_process_encodes_no_reference_and_finds_the_same(
    encoder: PatchEncoder, good: list[Path], tmp_path: Path, count: int
) -> None:
    parts = [plate(tmp_path / "gash.png", True, 9), plate(tmp_path / "fine.png", False, 10), good[0]]
    found = []
    for _ in range(2):
        resources, counting = process(encoder)
        found.append([resources.view(part, good[:count]).evidence for part in parts[: 3 if count > 1 else 2]])
    assert counting.seen == len(found[0])
    for first, again in zip(*found, strict=True):
        assert (again.score, again.threshold, again.verdict) == (first.score, first.threshold, first.verdict)
        assert again.warnings == first.warnings
        assert again.threshold_reason == first.threshold_reason
        np.testing.assert_array_equal(again.map, first.map)


def test_the_file_follows_from_content_settings_and_encoder(
    encoder: PatchEncoder, good: list[Path], tmp_path: Path
) -> None:
    extractor = EvidenceExtractor(encoder=encoder)
    name = bank_file(extractor, good, None)
    moved = good[0].rename(tmp_path / "moved.png")
    assert bank_file(extractor, [moved, *good[1:]], None) == name
    assert bank_file(extractor, good[1:], None) != name
    assert bank_file(EvidenceExtractor(EvidenceSettings(size=160), encoder), [moved, *good[1:]], None) != name
    plate(moved, True, 0)
    assert bank_file(extractor, [moved, *good[1:]], None) != name
    with pytest.raises(InputError, match=r"good/0\.png cannot be read"):
        bank_file(extractor, good, None)


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "foreign"])
def test_a_damaged_file_is_made_again(encoder: PatchEncoder, good: list[Path], damage: str) -> None:
    process(encoder)[0].bank(good)
    file = bank_file(EvidenceExtractor(encoder=encoder), good, None)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    bad = {"cut": content[:-100], "changed": content, "empty": b"", "foreign": b"another program's file" * 9}[damage]
    file.write_bytes(bad)
    assert read_bank(file, "cpu") is None
    resources, counting = process(encoder)
    resources.bank(good)
    assert counting.seen == len(good)
    assert read_bank(file, "cpu") is not None


def test_no_code_is_run_from_a_file(encoder: PatchEncoder, tmp_path: Path) -> None:
    import hashlib
    import pickle

    class Order:
        def __reduce__(self) -> object:
            return os.mkdir, (str(tmp_path / "was-run"),)

    content = pickle.dumps(Order(), protocol=2)
    (tmp_path / "x.bank").write_bytes(hashlib.sha256(content).digest() + content)
    assert read_bank(tmp_path / "x.bank", "cpu") is None
    assert not (tmp_path / "was-run").exists()


def test_the_least_recently_used_go_first(
    encoder: PatchEncoder, good: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = EvidenceExtractor(encoder=encoder)
    files = []
    for number, path in enumerate(good):
        files.append(bank_file(extractor, [path], None))
        keep_bank(files[-1], extractor.prepare([load_image(path)]))
        os.utime(files[-1], (number, number))
    assert read_bank(files[0], "cpu") is not None  # used just now
    size = files[0].stat().st_size
    monkeypatch.setattr(kept_banks, "MOST_BYTES", 3 * size + size // 2)
    keep_bank(files[3], extractor.prepare([load_image(good[3])]))
    assert [file.exists() for file in files] == [True, False, True, True]


def test_a_full_or_closed_folder_stops_nothing(
    encoder: PatchEncoder, good: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    home = tmp_path / "home"
    home.write_text("a file where a folder should be")
    monkeypatch.setenv("SAGE_HOME", str(home))
    assert process(encoder)[0].view(good[3], good[:2]).evidence.threshold_from == "references"
    assert "cannot be kept in" in capsys.readouterr().err


def test_nothing_is_kept_where_that_was_not_wanted(encoder: PatchEncoder, good: list[Path]) -> None:
    process(encoder, keep_references=False)[0].bank(good)
    assert not bank_file(EvidenceExtractor(encoder=encoder), good, None).exists()


def test_a_writer_that_is_killed_beside_another_leaves_a_whole_file(
    encoder: PatchEncoder, good: list[Path], tmp_path: Path
) -> None:
    bank = EvidenceExtractor(encoder=encoder).prepare([load_image(good[0])])
    source, file = tmp_path / "source.bank", tmp_path / "references" / "x.bank"
    keep_bank(source, bank)
    script = (
        "import os, sys, threading\n"
        "from pathlib import Path\n"
        "from sage_ad.agents.kept_banks import keep_bank, read_bank\n"
        "bank = read_bank(Path(sys.argv[1]), 'cpu')\n"
        "print('ready', flush=True)\n"
        "threading.Timer(0.2, os._exit, (9,)).start()\n"
        "while True:\n"
        "    keep_bank(Path(sys.argv[2]), bank)\n"
    )
    command = [sys.executable, "-c", script, str(source), str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"ready\n"
        while killed.poll() is None:
            keep_bank(file, bank)
            assert read_bank(file, "cpu") is not None
    assert killed.returncode == 9
    assert read_bank(file, "cpu") is not None
