"""Only models that are there are offered, and only real pairs are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sage_ad.demo.services.models import checkpoint_folder, shipped_models, two_stages
from sage_ad.demo.services.settings import DemoSettings
from sage_ad.demo.tabs.compare import two_sides
from sage_ad.evaluation.inspection import InspectionRequest
from sage_ad.vlm.backends.base import UNTUNED
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.sage.checkpoint import SETTINGS


@pytest.fixture
def request_() -> InspectionRequest:
    return InspectionRequest(image=Path("part.png"), references=[Path("good.png")])


@pytest.fixture
def stage_two(tmp_path: Path) -> str:
    """A folder that says of itself what `sage-train edpo` writes."""
    settings = {"base": UNTUNED, "config": {}, "processor": {}, "trained": {"stage": 2, "stage_1": {"steps": 216}}}
    (tmp_path / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    return str(tmp_path)


def test_every_offered_checkpoint_is_there() -> None:
    assert shipped_models()[0] == "sage-tiny"
    assert all(checkpoint_folder(name) is not None for name in shipped_models() if name != UNTUNED)


def test_the_stages_are_compared_where_both_are_there(stage_two: str, request_: InspectionRequest) -> None:
    assert two_stages(["sage-tiny", UNTUNED]) is None
    settings = DemoSettings(also=(stage_two,))
    assert settings.stages == ("sage-tiny", stage_two)
    sides = two_sides("stages", request_, ("", ""), settings.stages)
    assert [side.model for side in sides] == ["sage-tiny", stage_two]
    with pytest.raises(InputError, match="no E-DPO checkpoint"):
        two_sides("stages", request_, ("", ""), None)


def test_a_model_is_not_compared_with_itself(request_: InspectionRequest) -> None:
    for pair in (("sage-tiny", "sage-tiny"), ("sage-tiny", "sage-tiny-sft")):
        with pytest.raises(InputError, match="same model"):
            two_sides("models", request_, pair, None)


def test_what_is_left_out_is_left_out(request_: InspectionRequest) -> None:
    with_, without = two_sides("reference", request_, ("", ""), None)
    assert (len(with_.request.references), len(without.request.references)) == (1, 0)
    with_, without = two_sides("facts", request_, ("", ""), None)
    assert without.request.settings["facts"] == "none"
    with pytest.raises(InputError, match="no good part"):
        two_sides("reference", without.request.model_copy(update={"references": []}), ("", ""), None)
    with pytest.raises(InputError, match="no comparison"):
        two_sides("sideways", request_, ("", ""), None)
