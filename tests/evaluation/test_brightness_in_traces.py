"""What was assumed on reading the pictures stands in the trace: the range of brightness, and pages that were left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from plates import PlainExtractor, plate

from sage_ad.evaluation.inspection import InspectionRequest
from sage_ad.evaluation.template_inspector import EvidenceTemplateInspector
from sage_ad.vlm.errors import InputError


def grey(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"))


def test_12_bits_with_a_hot_pixel_are_judged_as_8_bits(tmp_path: Path) -> None:
    inspector = EvidenceTemplateInspector(extractor=PlainExtractor())  # type: ignore[arg-type]
    verdicts = {}
    for defective in (False, True):
        bad = plate(tmp_path / f"{defective}.png", defective, 1)
        good = plate(tmp_path / "good.png", False, 2)
        deep = []
        for path in (bad, good):
            values = grey(path).astype(np.uint16) * 16
            values[0, 0] = 65535 if path == bad else 0
            deep.append(path.with_suffix(".tif"))
            tifffile.imwrite(deep[-1], values)
        plain = inspector.inspect(InspectionRequest(image=bad, references=[good]))
        trace = inspector.inspect(InspectionRequest(image=deep[0], references=deep[1:]))
        assert trace.verdict == plain.verdict
        assert trace.anomaly_score == pytest.approx(plain.anomaly_score, abs=0.02)
        assert (
            "values from 0 to 4095 are read as 0 to 255 (12 bits, from 2 pictures together)" in trace.steps[0].summary
        )
        assert "Brightness" not in plain.steps[0].summary
        verdicts[defective] = trace.verdict
    assert verdicts == {False: "normal", True: "anomalous"}


def test_a_thumbnail_is_said_and_a_stack_refused(tmp_path: Path) -> None:
    inspector = EvidenceTemplateInspector(extractor=PlainExtractor())  # type: ignore[arg-type]
    part = Image.open(plate(tmp_path / "part.png", True, 1))
    part.resize((32, 32)).save(tmp_path / "thumb.tif", save_all=True, append_images=[part])
    part.save(tmp_path / "stack.tif", save_all=True, append_images=[part])
    good = plate(tmp_path / "good.png", False, 2)
    trace = inspector.inspect(InspectionRequest(image=tmp_path / "thumb.tif", references=[good]))
    assert trace.verdict == "anomalous"
    assert trace.warnings == [
        "thumb.tif: page 2 of 2 was taken, the largest with 96 x 96 pixels; the other page is a smaller copy or a mask."
    ]
    with pytest.raises(InputError, match="holds 2 pictures"):
        inspector.inspect(InspectionRequest(image=tmp_path / "stack.tif", references=[good]))
    page = inspector.inspect(InspectionRequest(image=tmp_path / "stack.tif#page=2", references=[good]))
    assert (page.verdict, page.warnings) == ("anomalous", [])
