"""What the page and the reports show: everything that was found, and all text as text."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest
from visitors import HOSTILE

from sage_ad.demo.services.pictures import Shown, boxes, heat_layer
from sage_ad.demo.view import render
from sage_ad.demo.view.progress import STEPS, Progress
from sage_ad.evaluation.inspection import InspectionTrace


class Seen(HTMLParser):
    """Tags and texts of a piece of HTML, and whether what is opened is closed."""

    VOID = ("img", "meta", "br", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def everything(trace: InspectionTrace, pictures: Shown) -> str:
    """All parts of a finished inspection."""
    progress = Progress(uid="t").finished(trace, pictures)
    return "".join(
        (
            render.verdict_html(trace, HOSTILE),
            render.evidence_html(pictures, trace, "t"),
            render.answers_html(progress),
            render.facts_html(trace, "t"),
            render.steps_html(progress),
            render.notice_html(HOSTILE),
        )
    )


def test_text_from_outside_stays_text(everything: str) -> None:
    seen = Seen(everything)
    assert not seen.open
    assert not {"script", "iframe", "object"} & {tag for tag, _ in seen.tags}
    assert not [name for _, attributes in seen.tags for name in attributes if name.startswith("on")]
    assert all((attributes["src"] or "").startswith("data:image/") for tag, attributes in seen.tags if tag == "img")
    assert sum(HOSTILE in text for text in seen.texts) >= 6, "it is shown as it stands"


def test_streamed_words_stay_text() -> None:
    progress = Progress(uid="t")
    progress.feed({"event": "token", "text": HOSTILE})
    assert HOSTILE in Seen(render.answers_html(progress)).texts
    progress.feed({"event": "answer", "question": HOSTILE, "text": HOSTILE})
    assert Seen(render.answers_html(progress)).texts.count(HOSTILE) == 2


def test_every_picture_has_a_text_alternative_and_every_bar_a_name(everything: str) -> None:
    seen = Seen(everything)
    assert all("alt" in attributes for tag, attributes in seen.tags if tag == "img")
    assert all(attributes.get("aria-label") for _, attributes in seen.tags if attributes.get("role") == "img")
    assert "upper left" in everything


def test_each_citation_leads_to_its_fact(everything: str, trace: InspectionTrace) -> None:
    seen = Seen(everything)
    targets = {attributes.get("id") for _, attributes in seen.tags}
    links = [attributes["href"] for tag, attributes in seen.tags if tag == "a"]
    assert links == ["#t-fact-1", "#t-fact-2"]
    assert {link[1:] for link in links if link} <= targets
    # The link stands behind the words that the fact gave, not at the end of the answer.
    assert 'A gash is bright.<a class="sg-cite"' in everything


def test_sources_are_named_without_the_servers_folders(everything: str) -> None:
    assert "manual.pdf, page 3" in everything
    assert "/srv/" not in everything.replace(HOSTILE, "")


def test_scores_come_with_their_reasons(everything: str) -> None:
    assert "localisation: 2 of 5" in everything
    assert "no place is named" in everything
    assert "the judge was silent" in everything


def test_steps_are_told_as_they_happen() -> None:
    progress = Progress(uid="t")
    assert [line.name for line in progress.steps] == list(STEPS)
    progress.feed({"event": "waiting", "ahead": 2})
    assert "2 before you" in render.steps_html(progress)
    progress.feed({"event": "started", "step": "perceive"})
    assert [line.state for line in progress.steps][:2] == ["now", "ahead"]
    progress.feed({"event": "step", "step": {"name": "perceive", "seconds": 0.25, "summary": "one region"}})
    progress.feed({"event": "started", "step": "recall"})
    progress.feed({"event": "step", "step": {"name": "recall", "seconds": 0.1, "summary": "covered"}})
    progress.feed({"event": "started", "step": "fuse"})
    assert [line.state for line in progress.steps][:4] == ["done", "done", "passed over", "now"]
    shown = render.steps_html(progress)
    assert "0.25 s" in shown
    assert "one region" in shown


def test_a_second_round_is_shown_as_one() -> None:
    progress = Progress(uid="t")
    for name in ("perceive", "recall", "fuse", "answer", "evaluate", "extract", "fuse", "answer", "evaluate"):
        progress.feed({"event": "started", "step": name})
        progress.feed({"event": "step", "step": {"name": name, "seconds": 0.1, "summary": f"did {name}"}})
    assert [line.name for line in progress.steps if line.state == "done"].count("answer") == 2
    assert all(line.state in ("done", "passed over") for line in progress.steps)


def test_boxes_stand_where_the_regions_are(trace: InspectionTrace) -> None:
    (box,) = boxes(list(trace.regions), (96, 48))
    assert (box["left"], box["top"], box["width"], box["height"]) == (8.33, 16.67, 25.0, 37.5)


def test_evidence_is_clear_below_the_threshold_and_opaque_at_twice_the_threshold() -> None:
    layer = np.asarray(heat_layer(np.array([[0.1, 0.4], [0.41, 0.9]], np.float32), 0.4))
    assert layer[0, :, 3].tolist() == [0, 0]
    assert 0 < layer[1, 0, 3] < layer[1, 1, 3] == 255
