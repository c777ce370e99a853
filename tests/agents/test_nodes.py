"""Which facts are looked up for what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sage_ad.agents.inspector import SageInspector
from sage_ad.evaluation.inspection import InspectionRequest


def cloth(path: Path, draw: str | None = None) -> Path:
    """A plain weave of 336 px, with a grey blob or a dark line if wanted."""
    rows, columns = np.mgrid[0:336, 0:336]
    weave = 150 + 25 * np.sin(rows * np.pi / 4) * np.sin(columns * np.pi / 4)
    noise = np.random.default_rng(0).normal(0, 3, weave.shape)
    picture = Image.fromarray(np.clip(weave + noise, 0, 255).astype(np.uint8)).convert("RGB")
    pen = ImageDraw.Draw(picture)
    if draw == "blob":
        pen.ellipse((150, 140, 182, 170), fill=(95, 95, 95))
    elif draw == "line":
        pen.line((170, 90, 170, 250), fill=(50, 50, 50), width=4)
    picture.save(path)
    return path


@pytest.mark.parametrize("product", ["fabric", "woven cloth", "upholstery fabric"])
@pytest.mark.parametrize(
    ("drawn", "first", "later"), [("blob", "stain", "broken end"), ("line", "broken end", "stain")]
)
def test_a_grey_blob_calls_up_stains_and_a_dark_line_broken_ends(
    inspector: SageInspector, tmp_path: Path, product: str, drawn: str, first: str, later: str
) -> None:
    part, good = cloth(tmp_path / "part.png", drawn), cloth(tmp_path / "good.png")
    trace = inspector.inspect(InspectionRequest(image=part, references=[good], product=product))
    assert trace.verdict == "anomalous"
    assert trace.defect is None
    about = [next(iter(inspector.resources.store.get(fact.id).defects), None) for fact in trace.facts]
    assert first in about
    assert later not in about or about.index(first) < about.index(later)
