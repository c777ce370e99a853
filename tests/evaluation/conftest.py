"""Fixtures of the tests of `evaluation`."""

from __future__ import annotations

from pathlib import Path

import pytest
from plates import PlainExtractor, gash, plate

import evaluation.detect as detection


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    """Three categories in MVTec's layout: complete with masks, without masks, and without good images."""
    root = tmp_path / "plates"
    for name in ("plate", "sheet"):
        for number in range(6):
            plate(root / name / "train" / "good" / f"{number}.png", False, number)
        for number in range(3):
            plate(root / name / "test" / "good" / f"{number}.png", False, 50 + number)
            plate(root / name / "test" / "gash" / f"{number}.png", True, 80 + number)
            if name == "plate":
                gash(root / name / "ground_truth" / "gash" / f"{number}_mask.png")
    plate(root / "washer" / "test" / "gash" / "0.png", True, 9)
    return root


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> PlainExtractor:
    """`sage-eval detect` measures with the stand-in instead of the encoder."""
    extractor = PlainExtractor()
    monkeypatch.setattr(detection, "_extractor", lambda *_: extractor)
    return extractor
