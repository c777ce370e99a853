"""Turns inspections into HTML with templates that escape everything: text of files, facts and models stays text.

The same templates make the page and the reports. They hold no script; Gradio puts their output in place unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.agents.answering.report import UNSURE, sentence_case
from sage_ad.demo.services.pictures import Shown, boxes, data_uri
from sage_ad.demo.services.safety import short_source, without_controls, without_places
from sage_ad.demo.view.progress import STEPS, Progress

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from sage_ad.evaluation.inspection import InspectionTrace
    from sage_ad.knowledge.facts import Fact
    from sage_ad.knowledge.store.fact_store import FactStore

FOLDER = Path(__file__).parents[1]


@cache
def environment() -> Environment:
    """The templates, with escaping on for all of them."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        finalize=without_controls,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["source"] = short_source
    made.filters["data_uri"] = data_uri
    made.filters["capitalised"] = sentence_case
    return made


@cache
def sheet(name: str) -> str:
    """One of the style sheets: "base", "parts" or "page"."""
    return (FOLDER / "style" / f"{name}.css").read_text(encoding="utf-8")


def report_style() -> str:
    """The style of reports."""
    return sheet("base") + sheet("parts")


def page_style() -> str:
    """The style of the page.

    It goes into the head as it is, because what Gradio takes as `css` loses its container queries; being nested, it
    wins over Gradio's own.
    """
    return f"{sheet('base')}.gradio-container.gradio-container {{\n{sheet('parts')}{sheet('page')}}}\n"


def fragment(name: str, **values: Any) -> str:
    """One template, filled in."""
    return environment().get_template(f"{name}.html.j2").render(**values)


def status_html(story: Progress) -> str:
    """One line on what is happening, or how long it took."""
    return fragment("status", story=story)


def verdict_html(trace: InspectionTrace, part: str = "", uid: str = "") -> str:
    """Verdict and explanation, with the regions numbered as on the picture, the names in question, and the score.

    Args:
        trace: an inspection, or what is known of one that has not ended.
        part: file name of the picture.
        uid: prefix of the anchors.
    """
    regions = {f"{region.description}." for region in trace.regions if region.description}
    # The numbered list takes the place of the sentences on places, of which the text holds the first ones only.
    lines = [
        line
        for line in trace.explanation.splitlines()
        if line.partition(": ")[2] not in regions
        and not line.endswith(" in structure.")
        and not (regions and re.match(r"\d+ more areas? stands? out", line))
    ]
    # The scale ends where the marks of score and threshold both have room.
    end = max(trace.anomaly_score, trace.threshold, 1e-9) * 1.25
    return fragment(
        "verdict",
        trace=trace,
        part=part,
        uid=uid,
        state=state_of(trace),
        lines=[cited(line, _stated_in(line, trace), trace, uid) for line in lines],
        score_at=round(100 * max(trace.anomaly_score, 0) / end, 1),
        threshold_at=round(100 * max(trace.threshold, 0) / end, 1),
    )


def state_of(trace: InspectionTrace) -> str:
    """The verdict, or "borderline" where it could as well be the other one."""
    unsure = trace.confidence is not None and trace.confidence < UNSURE
    return "borderline" if unsure else trace.verdict


def evidence_html(pictures: Shown, trace: InspectionTrace, uid: str, live: bool = True) -> str:
    """The part with the evidence and numbered boxes over it, and a good part beside it.

    `live` adds the slider that wipes the marks off; it needs the page's script.
    """
    return fragment(
        "evidence", pictures=pictures, regions=boxes(list(trace.regions), pictures.size), uid=uid, live=live
    )


def writing_html(answers: Mapping[str, str]) -> str:
    """Answers by question while they are written."""
    return fragment("writing", answers=answers)


def answers_html(trace: InspectionTrace, uid: str) -> str:
    """The answers, with what the self-check objects to; nothing if no question was asked."""
    rows = [(answer, cited(answer.text, answer.facts, trace, uid)) for answer in trace.answers]
    return fragment("answers", rows=rows) if rows else ""


def details_html(trace: InspectionTrace, uid: str, store: FactStore | None = None, opened: bool = False) -> str:
    """Facts with their sources, and the steps: folded, unless `opened`."""
    known = stored_facts([fact.id for fact in trace.facts], store) if store is not None else {}
    return fragment("details", trace=trace, known=known, uid=uid, cited=cited_ids(trace), steps=STEPS, opened=opened)


def result_html(
    trace: InspectionTrace, pictures: Shown, uid: str, part: str = "", store: FactStore | None = None,
    opened: bool = False,
) -> str:  # fmt: skip
    """A whole inspection: verdict and pictures, answers, details; `opened` for a report, where no script works."""
    seen = evidence_html(pictures, trace, uid, live=not opened)
    found = f"<div class='sg-found'>{verdict_html(trace, part, uid)}{seen}</div>"
    rest = answers_html(trace, uid) + details_html(trace, uid, store, opened)
    return f"<div class='sg-pile'>{found}{rest}</div>"


def folder_html(found: Sequence[Mapping[str, Any]]) -> str:
    """Parts of a folder, the oddest first.

    Args:
        found: of each part "trace", "picture" (WebP bytes) and "size" of the original (`Engine.folder`).
    """
    from sage_ad.vlm.evidence.peers import batch_threshold

    ordered = sorted(found, key=lambda part: -part["trace"].anomaly_score / max(part["trace"].threshold, 1e-9))
    traces = [part["trace"] for part in ordered]
    by_batch = [trace.anomaly_score for trace in traces if trace.threshold_from == "batch"]
    return fragment(
        "folder",
        parts=[
            {
                **part,
                "name": Path(part["trace"].image).name,
                "boxes": boxes(part["trace"].regions[:5], part["size"]),
                "state": state_of(part["trace"]),
            }
            for part in ordered
        ],
        anomalous=sum(trace.verdict == "anomalous" for trace in traces),
        odd=batch_threshold(by_batch).odd if by_batch else None,
        reason=traces[0].threshold_reason,
        warnings=list(dict.fromkeys(warning for trace in traces for warning in trace.warnings))[:5],
    )


def beginning_html(*steps: tuple[str, str]) -> str:
    """What a tab shows before anything was done: numbered steps, the first words of each in bold."""
    return fragment("empty", steps=steps)


def fact_html(fact: Fact) -> str:
    """One fact of the knowledge base with all that is known of it."""
    return fragment("fact", fact=fact)


def notice_html(text: str, kind: str = "problem") -> str:
    """A sentence for the viewer; `kind` is "problem" or "done"."""
    return fragment("notice", text=without_places(text), kind=kind)


def _stated_in(line: str, trace: InspectionTrace) -> list[str]:
    """Ids of the cited facts whose sentence stands in a line of the explanation."""
    return [fact.id for fact in trace.facts if fact.id in trace.cited and fact.text.rstrip(".") in line]


def cited_ids(trace: InspectionTrace) -> set[str]:
    """Ids of the facts that the explanation or some answer cites."""
    cited_by_answers = {identifier for answer in trace.answers for identifier in answer.facts}
    return cited_by_answers | set(trace.cited)


def stored_facts(ids: Sequence[str], store: FactStore) -> dict[str, Fact]:
    """Facts as the knowledge base has them now; those that a model wrote for one inspection only are not in it."""
    from sage_ad.vlm.errors import InputError

    found = {}
    for identity in ids:
        try:
            found[identity] = store.get(identity)
        except InputError:
            continue
    return found


def cited(text: str, facts: Sequence[str], trace: InspectionTrace, uid: str) -> Markup:
    """A text with a link after each fact that it uses (at its end, where the fact's words do not stand in it)."""
    from markupsafe import Markup, escape

    numbered = {fact.id: (number, fact.text.rstrip(".")) for number, fact in enumerate(trace.facts, start=1)}
    # (place, link) of each citation, put in from the end so that the places stay right.
    links = []
    for identifier in dict.fromkeys(facts):
        if identifier not in numbered:
            continue
        number, plain = numbered[identifier]
        at = text.find(plain)
        place = len(text) if at < 0 else at + len(plain) + text.startswith(".", at + len(plain))
        link = Markup('<a class="sg-cite" href="#{0}-fact-{1}" aria-label="Fact {1}, with its source">{1}</a>')
        links.append((place, link.format(uid, number)))
    made, end = Markup(""), len(text)
    for place, link in sorted(links, key=lambda item: -item[0]):
        made = link + escape(text[place:end]) + made
        end = place
    return escape(text[:end]) + made


def slug(text: str) -> str:
    """A text as the beginning of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "part"
