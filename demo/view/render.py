"""Turns inspections into HTML with templates that escape everything: text of files, facts and models stays text.

The same templates make the page and the reports. They hold no script; Gradio puts their output in place unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.demo.services.pictures import Shown, boxes, data_uri
from sage_ad.demo.services.safety import short_source
from sage_ad.demo.view.progress import Progress

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from sage_ad.evaluation.inspection import InspectionTrace, TraceFact
    from sage_ad.knowledge.facts import Fact
    from sage_ad.knowledge.store.fact_store import FactStore

FOLDER = Path(__file__).parents[1]
LEVELS = ("type", "localisation", "logic")


@cache
def environment() -> Environment:
    """The templates, with escaping on for all of them."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["source"] = short_source
    made.filters["data_uri"] = data_uri
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


def steps_html(progress: Progress) -> str:
    """The list of steps, with times and findings."""
    return fragment("steps", progress=progress)


def verdict_html(trace: InspectionTrace, part: str = "") -> str:
    """The verdict with score, threshold, confidence and warnings."""
    # The scale ends where the marks of score and threshold both have room.
    end = max(trace.anomaly_score, trace.threshold, 1e-9) * 1.25
    return fragment(
        "verdict",
        trace=trace,
        part=part,
        score_at=round(100 * max(trace.anomaly_score, 0) / end, 1),
        threshold_at=round(100 * max(trace.threshold, 0) / end, 1),
    )


def evidence_html(pictures: Shown, trace: InspectionTrace | None, uid: str) -> str:
    """Test part, good part and evidence side by side."""
    regions = boxes(list(trace.regions), pictures.size) if trace else []
    return fragment("evidence", pictures=pictures, trace=trace, regions=regions, uid=uid)


def answers_html(progress: Progress) -> str:
    """The answers: while they are written, and with their scores once they are judged."""
    if progress.trace is None:
        return fragment("writing", progress=progress)
    numbers = {fact.id: number for number, fact in enumerate(progress.trace.facts, start=1)}
    texts = {fact.id: fact.text for fact in progress.trace.facts}
    rows = [
        {
            "answer": answer,
            "text": cited(answer.text, answer.facts, numbers, texts, progress.uid),
            "levels": [(name, getattr(answer.mle, name)) for name in LEVELS] if answer.mle else [],
        }
        for answer in progress.trace.answers
    ]
    return fragment("answers", rows=rows)


def facts_html(trace: InspectionTrace, uid: str, store: FactStore | None = None) -> str:
    """The facts of an inspection; each opens to show where it came from."""
    known = stored_facts(trace.facts, store) if store is not None else {}
    return fragment("facts", facts=trace.facts, known=known, uid=uid, cited=cited_ids(trace))


def fact_html(fact: Fact) -> str:
    """One fact of the knowledge base with all that is known of it."""
    return fragment("fact", fact=fact)


def notice_html(text: str, kind: str = "problem") -> str:
    """A sentence for the viewer; `kind` is "problem" or "done"."""
    return fragment("notice", text=text, kind=kind)


def cited_ids(trace: InspectionTrace) -> set[str]:
    """Ids of the facts that some answer cites."""
    return {identifier for answer in trace.answers for identifier in answer.facts}


def stored_facts(facts: Sequence[TraceFact], store: FactStore) -> dict[str, Fact]:
    """The facts as the knowledge base has them now; those that a model wrote for one inspection only are not in it."""
    from sage_ad.vlm.errors import InputError

    found = {}
    for fact in facts:
        try:
            found[fact.id] = store.get(fact.id)
        except InputError:
            continue
    return found


def cited(text: str, facts: Sequence[str], numbers: Mapping[str, int], texts: Mapping[str, str], uid: str) -> Markup:
    """An answer with a link after each fact that it uses (at its end, where the fact's words do not stand in it)."""
    from markupsafe import Markup, escape

    # (place, link) of each citation, put in from the end so that the places stay right.
    links = []
    for identifier in dict.fromkeys(facts):
        if identifier not in numbers:
            continue
        number = numbers[identifier]
        plain = texts[identifier].rstrip(".")
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
