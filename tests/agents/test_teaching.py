"""Teaching by showing: three pictures of a defect give the next one its name, and good looks serve as references."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from standard import STANDARD

from sage_ad.agents.inspector import SageInspector
from sage_ad.agents.nodes import fits, trace_fact
from sage_ad.agents.resources import Resources
from sage_ad.evaluation.inspection import InspectionRequest
from sage_ad.knowledge.facts import Fact
from sage_ad.knowledge.ingestion.tags import with_taught
from sage_ad.knowledge.looks.pictures import add_looks
from sage_ad.knowledge.store.fact_store import FactStore

SIDE = 256


def sheet(path: Path, defect: str | None, seed: int) -> Path:
    """A grey brushed sheet, with a round red spot, a long dark scratch, or nothing."""
    draw, noise = random.Random(seed), np.random.default_rng(seed)
    grain = noise.normal(0, 5, (SIDE, 1)) + noise.normal(0, 3, (SIDE, SIDE))
    picture = Image.fromarray(np.clip(150 + grain, 0, 255).astype(np.uint8)).convert("RGB")
    pen, x, y = ImageDraw.Draw(picture), draw.randint(60, 190), draw.randint(60, 190)
    if defect == "rust spot":
        radius = draw.randint(14, 22)
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(150, 60, 30))
    elif defect == "scratch":
        pen.line([x - 50, y - draw.randint(10, 40), x + 50, y + draw.randint(10, 40)], fill=(40, 40, 40), width=4)
    picture.save(path)
    return path


@pytest.fixture
def taught(inspector: SageInspector, tmp_path: Path) -> SageInspector:
    """An inspector whose pack "machining" was shown three good sheets, four rust spots and four scratches."""
    goods = [sheet(tmp_path / f"good{n}.png", None, n) for n in range(3)]
    add_looks("machining", "brushed sheet", goods, defect=None)
    for first, defect in ((10, "rust spot"), (20, "scratch")):
        shown = [sheet(tmp_path / f"{defect}{n}.png", defect, first + n) for n in range(4)]
        add_looks("machining", "brushed sheet", shown, defect=defect)
    own = inspector.resources
    parts = Resources(
        inspector.settings, extractor=own.extractor, store=FactStore.open(), backend=own.backend, judge=own.judge
    )
    return SageInspector(resources=parts)


@pytest.mark.parametrize("defect", ["rust spot", "scratch"])
def test_the_likeliest_name_is_the_taught_one(taught: SageInspector, tmp_path: Path, defect: str) -> None:
    part = sheet(tmp_path / "part.png", defect, 77)
    trace = taught.inspect(InspectionRequest(image=part, product="Brushed  sheet"))
    assert trace.domain == "machining"
    assert len(trace.references) == 3
    assert trace.verdict == "anomalous"
    best = trace.candidates[0]
    assert (best.name, best.source) == (defect, "looks")
    assert best.reason == "like 4 of your 4 examples"
    assert trace.defect in (None, defect)
    assert defect in trace.explanation


def test_a_good_part_gets_no_name(taught: SageInspector, tmp_path: Path) -> None:
    trace = taught.inspect(InspectionRequest(image=sheet(tmp_path / "part.png", None, 90), product="brushed sheet"))
    assert (trace.verdict, trace.defect, trace.candidates) == ("normal", None, [])


def test_a_taught_picture_that_passes_is_said_to_be_one(taught: SageInspector, tmp_path: Path) -> None:
    missed = sheet(tmp_path / "missed.png", None, 90)
    add_looks("machining", "brushed sheet", [missed], defect="scratch")
    trace = taught.inspect(
        InspectionRequest(image=missed, product="brushed sheet", questions=["Is it a scratch?", "How large is it?"])
    )
    unseen = "This picture was taught as a scratch, which the evidence does not see."
    assert trace.verdict == "normal"
    assert unseen in trace.explanation
    assert [(answer.verdict, answer.text) for answer in trace.answers] == [(None, unseen)] * 2


def test_a_question_for_a_limit_is_answered_from_an_approved_fact(taught: SageInspector, tmp_path: Path) -> None:
    def answer(question: str = "How wide may it be?") -> tuple[str, list[str]]:
        part = sheet(tmp_path / "part.png", "rust spot", 77)
        request = InspectionRequest(image=part, product="brushed sheet", questions=[question])
        trace = taught.inspect(request)
        assert trace.answers[0].verdict is None
        assert set(trace.answers[0].facts) <= {fact.id for fact in trace.facts}
        return trace.answers[0].text, trace.answers[0].facts

    limit = Fact(text="A rust spot of at most 2 mm is accepted.", kind="normal-variation", domain="machining")
    other = Fact(
        text="A scratch of at most 9 mm is accepted.", kind="normal-variation", domain="machining", status="approved"
    )
    taught.resources.store.add([limit, other])
    text, cited = answer()
    assert text.startswith("No approved fact about brushed sheet states a limit of a rust spot;")
    assert cited == []
    taught.resources.store.set_status(limit.id, "approved")
    text, cited = answer()
    assert text.startswith("A rust spot of at most 2 mm is accepted. Measured: ")
    assert cited == [limit.id]
    # The limits of other defects are no answer.
    text, cited = answer("Is a dent of 3 mm allowed?")
    assert text.startswith("No approved fact about brushed sheet states a limit;")
    assert cited == []


def test_what_is_accepted_of_another_size_is_not_told_of_this_defect(taught: SageInspector, tmp_path: Path) -> None:
    told = {"kind": "consequence", "domain": "machining", "status": "approved", "defects": ("rust spot",)}
    fact = Fact(text="Brushed sheet, rust spot, size: < 0.1 mm, disposition: accept", **told)
    taught.resources.store.add([fact, Fact(text="Rust spots grow under paint.", **told)])
    part = sheet(tmp_path / "part.png", "rust spot", 77)
    trace = taught.inspect(InspectionRequest(image=part, product="brushed sheet", domain="machining"))
    assert trace.verdict == "anomalous"
    assert "accept" not in trace.explanation
    assert fact.id not in {cited.id for cited in trace.facts}


def test_a_fact_of_another_part_number_is_none_of_this_part() -> None:
    fact = Fact(text="Chips are scrapped.", kind="consequence", domain="magnets", products=("segment MG-2",))
    assert fits(fact, "Segment MG 2, ground")
    assert not fits(fact, "segment MG-20")


def test_a_product_that_nothing_was_shown_of_gets_no_name(taught: SageInspector, tmp_path: Path) -> None:
    part, good = sheet(tmp_path / "part.png", "scratch", 77), sheet(tmp_path / "good.png", None, 1)
    trace = taught.inspect(InspectionRequest(image=part, references=[good], product="turned part", domain="machining"))
    assert (trace.defect, trace.candidates) == (None, [])
    assert "was not taught" in trace.explanation


def read_manual(taught: SageInspector, folder: Path) -> list[Fact]:
    from sage_ad.knowledge.ingestion.pipeline import ingest

    manual = folder / "manual.md"
    manual.write_text(
        "# Brushed sheet, turned parts\n\n## Rust spots\nRust comes from wet packing and coolant that was not washed off.\n"
        "It leads to scrap on the visible side of a housing.\n",
        encoding="utf-8",
    )
    return ingest([manual], "machining", taught.resources.store).added


def test_a_manual_of_the_users_own_tells_what_follows(taught: SageInspector, tmp_path: Path) -> None:
    """Its facts get their tags from the pack's cards: nobody writes any by hand."""
    facts = read_manual(taught, tmp_path)
    assert {fact.defects for fact in facts} == {("rust spot",)}
    trace = taught.inspect(
        InspectionRequest(image=sheet(tmp_path / "part.png", "rust spot", 77), product="brushed sheet")
    )
    assert trace.defect == "rust spot"
    assert "It leads to scrap on the visible side of a housing" in trace.explanation
    assert trace.cited
    assert set(trace.cited) <= {fact.id for fact in facts}


def test_answers_cite_facts_of_the_asserted_defect_and_of_no_other(taught: SageInspector, tmp_path: Path) -> None:
    """One by one and together, asked by the standard questions and in a user's own words."""
    store, own = taught.resources.store, read_manual(taught, tmp_path)
    asked = [*STANDARD, "What should I do?", "Why did it happen?", "Is it a scratch?"]
    parts = [sheet(tmp_path / f"part{n}.png", defect, 77 + n) for n, defect in enumerate(("rust spot", None))]
    requests = [InspectionRequest(image=part, product="brushed sheet", questions=asked) for part in parts]
    for traces in ([taught.inspect(request) for request in requests], list(taught.inspect_many(requests))):
        assert [trace.defect for trace in traces] == ["rust spot", None]
        assert traces[0].cited
        assert {fact.id for fact in own} & {name for answer in traces[0].answers for name in answer.facts}
        for trace in traces:
            cited = {*trace.cited, *(name for answer in trace.answers for name in answer.facts)}
            about = {name for fact in cited for name in store.get(fact).defects}
            assert about <= ({trace.defect} if trace.defect else set())
            told = "\n".join([trace.explanation, *(answer.text for answer in trace.answers)])
            others = [f for f in trace.facts if f.id not in cited and store.get(f.id).defects]
            assert not any(fact.text.rstrip(".") in told for fact in others)


def test_a_fact_that_came_before_the_pictures_is_about_the_defect_that_they_teach(tmp_path: Path) -> None:
    store = FactStore.open()
    fact = Fact(text="A brown bloom comes from wet storage.", kind="cause", domain="machining")
    other = Fact(text="A brown bloomery is a furnace.", kind="cause", domain="machining")
    add_looks("machining", "brushed sheet", [sheet(tmp_path / "part.png", "rust spot", 77)], defect="brown bloom")
    pack = with_taught(store.packs()["machining"])
    assert trace_fact(fact, None, pack, "brown bloom")["defects"] == ["brown bloom"]
    assert trace_fact(other, None, pack, "brown bloom")["defects"] == []
