"""The false-alarm slider promises what the good parts can bear, and says so when they cannot."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from plates import PlainExtractor, plate

from sage_ad.agents.resources import Resources
from sage_ad.agents.settings import AgentSettings
from sage_ad.demo.tabs.false_alarms import alarm_html, calibration_scores, split_goods


@pytest.mark.parametrize(("count", "kept"), [(2, 1), (4, 1), (8, 2), (40, 10)])
def test_most_good_parts_calibrate(count: int, kept: int) -> None:
    assert split_goods(count) == kept


def test_part_and_spare_good_parts_are_scored_alike(tmp_path: Path) -> None:
    resources = Resources(AgentSettings(), extractor=PlainExtractor())  # type: ignore[arg-type]
    engine: Any = SimpleNamespace(inspector=lambda: SimpleNamespace(resources=resources))
    goods = [plate(tmp_path / f"good{n}.png", False, n) for n in range(6)]
    events = list(calibration_scores(engine, plate(tmp_path / "bad.png", True, 9), goods))
    scores = events[-1]
    assert [event["event"] for event in events] == ["scored"] * 5 + ["scores"]
    assert len(scores["normals"]) == 5, "references do not calibrate"
    assert scores["score"] > max(scores["normals"])
    assert "Anomalous" in alarm_html(scores, 0.2)


def test_a_rate_that_the_good_parts_cannot_bear_is_refused_with_what_is_missing() -> None:
    shown = alarm_html({"score": 0.9, "normals": [0.1, 0.2, 0.3, 0.4]}, 0.05)
    assert "at least 19" in shown
    assert "add 15 more" in shown
    assert "Anomalous" not in shown


def test_a_part_like_the_good_ones_is_normal() -> None:
    assert "Normal" in alarm_html({"score": 0.2, "normals": [0.1, 0.2, 0.3, 0.4]}, 0.25)
