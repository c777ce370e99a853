"""What the page and the reports show: everything that was found, and all text as text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from visitors import HOSTILE

from sage_ad.demo.services.pictures import Shown, boxes, heat_layer
from sage_ad.demo.services.run_store import RunStore
from sage_ad.demo.view import render
from sage_ad.demo.view.progress import Progress
from sage_ad.demo.view.report import report_html
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
    return render.result_html(trace, pictures, "t", HOSTILE) + render.notice_html(HOSTILE)


def test_text_from_outside_stays_text(everything: str) -> None:
    seen = Seen(everything)
    assert not seen.open
    assert not {"script", "iframe", "object"} & {tag for tag, _ in seen.tags}
    assert not [name for _, attributes in seen.tags for name in attributes if name.startswith("on")]
    assert all((attributes["src"] or "").startswith("data:image/") for tag, attributes in seen.tags if tag == "img")
    assert sum(HOSTILE in text for text in seen.texts) >= 6, "it is shown as it stands"


def test_nothing_shown_turns_the_text_around_it_round(trace: InspectionTrace, pictures: Shown) -> None:
    odd = trace.model_copy(update={"product": "\u202evalve\x1b", "warnings": ["\u2066a\x00"], "explanation": "\u202dx"})
    shown = render.result_html(odd, pictures, "t", "\u202egnp.exe") + render.notice_html("\u202e/etc")
    assert "gnp.exe" in shown
    assert not set(shown) & {*"\u202e\u202d\u2066\x00\x1b"}


def test_streamed_words_stay_text_and_with_their_question() -> None:
    story = Progress(uid="t")
    story.feed({"event": "token", "question": "One?", "text": HOSTILE})
    story.feed({"event": "token", "question": HOSTILE, "text": "No"})
    story.feed({"event": "token", "question": "One?", "text": " seen"})
    assert story.answers == {"One?": f"{HOSTILE} seen", HOSTILE: "No"}
    assert HOSTILE in Seen(render.writing_html(story.answers)).texts
    story.feed({"event": "answer", "question": "One?", "text": "No scratch."})
    assert story.answers["One?"] == "No scratch."


def test_every_picture_has_a_text_alternative_and_every_bar_a_name(everything: str) -> None:
    seen = Seen(everything)
    assert all("alt" in attributes for tag, attributes in seen.tags if tag == "img")
    assert all(attributes.get("aria-label") for _, attributes in seen.tags if attributes.get("role") == "img")
    assert "upper left" in everything


def test_each_region_leads_to_its_box_and_each_citation_to_its_fact(everything: str, trace: InspectionTrace) -> None:
    seen = Seen(everything)
    targets = {attributes.get("id") for _, attributes in seen.tags}
    links = [attributes["href"] for tag, attributes in seen.tags if tag == "a"]
    assert links == ["#t-box-1", "#t-box-2", "#t-fact-2", "#t-fact-1", "#t-fact-1", "#t-fact-2"]
    assert {link[1:] for link in links if link} <= targets
    # The link stands behind the words that the fact gave, not at the end of the answer.
    assert 'A gash is bright.<a class="sg-cite"' in everything


def test_sources_are_named_without_the_servers_folders(everything: str) -> None:
    assert "manual.pdf, page 3" in everything
    assert "/srv/" not in everything.replace(HOSTILE, "")


def test_objections_of_the_self_check_come_without_bars(everything: str) -> None:
    assert "<li>No place is named" in everything
    assert "the judge was silent" in everything
    assert "no gold" not in everything


def test_the_explanation_comes_first_with_each_region_once(everything: str) -> None:
    order = ["Anomalous", "The part is anomalous.", "bright line, 24 x 3 px", "dark spot, 4 x 4 px", "What to do: rework it",
             "like 3 of your 3 examples", "taught by pictures", "It should be looked at", "Looked up facts"]  # fmt: skip
    places = [everything.index(words) for words in order]
    assert places == sorted(places)
    assert everything.count("bright line, 24 x 3 px") == 1


@pytest.mark.parametrize(
    ("confidence", "said"), [(0.59, "Borderline, rather anomalous"), (0.6, "Anomalous"), (None, "Anomalous")]
)
def test_a_verdict_that_could_go_either_way_is_borderline(
    trace: InspectionTrace, confidence: float | None, said: str
) -> None:
    shown = render.verdict_html(trace.model_copy(update={"confidence": confidence}))
    assert f"<h2>{said}</h2>" in shown


def test_the_page_speaks_to_inspectors(everything: str) -> None:
    texts = " ".join(Seen(everything).texts).replace(HOSTILE, "")
    for word in ("perceive", "recall", "fuse", "soft facts", "P(anomalous)"):
        assert word not in texts
    assert "Compared with good parts" in texts


def test_the_verdict_is_known_before_the_end(trace: InspectionTrace, pictures: Shown) -> None:
    story = Progress(uid="t")
    story.feed({"event": "waiting", "ahead": 2})
    assert "2 before you" in render.status_html(story)
    assert story.feed({"event": "started", "step": "perceive"}) == {"status"}
    assert "Comparing with good parts" in render.status_html(story)
    early = trace.model_copy(update={"explanation": "", "candidates": [], "answers": [], "steps": []})
    assert "verdict" in story.feed({"event": "seen", "pictures": pictures, "trace": early})
    assert story.trace is not None
    assert "<h2>Anomalous</h2>" in render.verdict_html(story.trace)
    story.feed({"event": "explanation", "text": "It is scratched."})
    assert "It is scratched." in render.verdict_html(story.trace)
    assert not story.done
    story.feed({"event": "trace", "trace": trace})
    assert story.done
    assert "Done in 1.5 s" in render.status_html(story)


def test_a_report_can_be_filled_in_and_signed(
    trace: InspectionTrace, pictures: Shown, originals: list[Path], tmp_path: Path
) -> None:
    run = RunStore(tmp_path / "runs").add("a" * 24, trace, pictures, {"references": []}, originals)
    report = report_html(run)
    seen = Seen(report)
    assert not {"script", "form"} & {tag for tag, _ in seen.tags}
    for name in ("Lot", "Inspector", "Decision", "Signature"):
        assert re.search(rf"<label>{name}[^<]*<input", report)
    assert report.index("Lot") < report.index("The part is anomalous.") < report.index("Looked up facts")


def test_boxes_stand_where_the_regions_are(trace: InspectionTrace) -> None:
    box = boxes(list(trace.regions), (96, 48))[0]
    assert (box["left"], box["top"], box["width"], box["height"]) == (8.33, 16.67, 25.0, 37.5)


def test_evidence_is_clear_below_the_threshold_and_opaque_at_twice_the_threshold() -> None:
    layer = np.asarray(heat_layer(np.array([[0.1, 0.4], [0.41, 0.9]], np.float32), 0.4))
    assert layer[0, :, 3].tolist() == [0, 0]
    assert 0 < layer[1, 0, 3] < layer[1, 1, 3] == 255
