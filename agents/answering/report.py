"""The explanation of an inspection: what, where, how large, what it may be, what follows, how sure. Each word has a source.

A sentence states what was measured (`sage_ad.vlm.evidence.description`), what was taught by showing (the pack's looks), or
what the pack says, which it cites. Nothing is asserted of a defect that was not taught; the pack's defects whose appearance fits
are kept apart, each with its own consequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sage_ad.agents.answering.wording import NAMED_REGIONS, join
from sage_ad.agents.state import EvidenceSummary
from sage_ad.evaluation.questions import with_article

if TYPE_CHECKING:
    from sage_ad.knowledge.store.cards import DefectCard

FITTING = 3
"""So many of the pack's defects whose appearance fits are named."""
UNSURE = 0.6
"""Confidence below which a verdict is called borderline."""


def explanation(
    evidence: EvidenceSummary,
    *,
    product: str | None,
    domain: str | None,
    known: bool,
    defect: str | None,
    candidates: Sequence[dict[str, Any]],
    cards: Mapping[str, DefectCard],
    facts: Sequence[dict[str, Any]],
) -> tuple[str, list[str]]:
    """The explanation, a sentence or two a line, and the ids of the facts that it cites.

    Args:
        evidence: what was measured; its regions carry their description.
        product: name of the product, if known.
        domain: the pack that was searched.
        known: whether that pack knows the product.
        defect: the name that is asserted, or None.
        candidates: `Candidate` dumps, the likeliest first.
        cards: the pack's defect cards by name.
        facts: recalled facts, the most fitting first.
    """
    lines = [_verdict(evidence, product)]
    cited: list[str] = []
    if evidence["verdict"] == "anomalous":
        lines += _places(evidence)
        lines.append(name_line(defect, candidates, product, domain, known))
        lines += consequence_lines(defect, candidates, cards, facts, cited)
        lines.append(action_line(defect, cards))
    else:
        lines.append("Nothing that was measured speaks against its use.")
        lines += _cite([fact for fact in facts if fact["kind"] == "normal-variation"], cited)
    lines.append(trust_line(evidence))
    return "\n".join(lines), cited


def _verdict(evidence: EvidenceSummary, product: str | None) -> str:
    thing = f"The {product}" if product else "The part"
    score, threshold = evidence["score"], evidence["threshold"]
    if evidence["threshold_from"] == "references":
        against = f"good parts reach up to {threshold:.2f}"
    else:
        against = f"the built-in threshold is {threshold:.2f}, because there was no good part to compare with"
    close = evidence["confidence"] is not None and evidence["confidence"] < UNSURE
    return f"{thing} is {evidence['verdict']}{', narrowly' if close else ''}: its score is {score:.2f}, {against}."


def _places(evidence: EvidenceSummary) -> list[str]:
    shown = evidence["regions"][:NAMED_REGIONS]
    lines = [f"{region['place'].capitalize()}: {region['description']}." for region in shown if region["description"]]
    more = len(evidence["regions"]) - len(shown)
    if more:
        lines.append(f"{more} smaller region{'s' * (more != 1)} stand{'s' * (more == 1)} out besides.")
    return lines


def name_line(
    defect: str | None, candidates: Sequence[dict[str, Any]], product: str | None, domain: str | None, known: bool
) -> str:
    """What the defect is called, or why it has no name; the arguments are those of `explanation`."""
    taught = [item for item in candidates if item["source"] == "looks"]
    fitting = [item["name"] for item in candidates if item["source"] == "cards"][:FITTING]
    said = [item for item in candidates if item["source"] == "model"]
    if said and defect is None:
        return (
            f"{said[0]['reason'].capitalize()} that it is {with_article(said[0]['name'])}; nothing taught confirms it."
        )
    if defect is not None:
        best = next(item for item in taught if item["name"] == defect)
        others = [f"{item['name']} ({item['probability']:.2f})" for item in taught if item["name"] != defect][:2]
        also = f"; else {join(others)}" if others else ""
        return f"Most likely {with_article(defect)} ({best['probability']:.2f}, {best['reason']}){also}."
    if taught:
        names = join([f"{item['name']} ({item['probability']:.2f})" for item in taught[:FITTING]])
        return f"It is not clear which of the taught defects it is: {names}."
    thing = product or "this product"
    if fitting:
        return (
            f"Which defect it is was not taught for {thing}. By its appearance it may be {or_list(fitting)} (pack {domain}); "
            "sage-kb add-looks teaches a name with three pictures."
        )
    if not known:
        return f"No pack knows {thing}, so the defect has no name; begin a pack with sage-kb new-domain NAME."
    return f"Which defect it is was not taught for {thing}; sage-kb add-looks teaches a name with three pictures."


def or_list(names: Sequence[str]) -> str:
    """A crack; a crack or a stain; a crack, a stain or a hole."""
    with_articles = [with_article(name) for name in names]
    return " or ".join([", ".join(with_articles[:-1]), with_articles[-1]] if len(names) > 1 else with_articles)


def consequence_lines(
    defect: str | None,
    candidates: Sequence[dict[str, Any]],
    cards: Mapping[str, DefectCard],
    facts: Sequence[dict[str, Any]],
    cited: list[str],
) -> list[str]:
    """What follows: of the asserted defect by a fact or its card; else of each defect that fits, separately."""
    if defect is not None:
        about = [fact for fact in facts if fact["kind"] == "consequence" and defect in fact.get("defects", ())]
        if about:
            return _cite(about, cited)
        return [cards[defect].consequence] if defect in cards else []
    names = [item["name"] for item in candidates if item["name"] in cards][:2]
    return [f"{name.capitalize()} ({cards[name].severity}): {cards[name].consequence}" for name in names]


def action_line(defect: str | None, cards: Mapping[str, DefectCard]) -> str:
    """What to do with the part: what the card of the asserted defect says, else to set it aside."""
    if defect is not None and defect in cards:
        card = cards[defect]
        standard = f" ({', '.join(card.standards)})" if card.standards else ""
        return f"What to do: {card.action.rstrip('.')}{standard}."
    return "What to do: set the part aside until somebody has looked at the marked areas."


def _cite(facts: Sequence[dict[str, Any]], cited: list[str]) -> list[str]:
    """The first fact as a line, with its state if nobody has approved it."""
    for fact in facts[:1]:
        cited.append(fact["id"])
        note = "" if fact["status"] == "approved" else " (proposed, not yet approved)"
        return [f"{fact['text'].rstrip('.')}{note}."]
    return []


def trust_line(evidence: EvidenceSummary) -> str:
    """How far the verdict can be trusted, and how that is known."""
    trust = evidence["confidence"]
    if trust is None:
        return f"How sure: not known. {evidence['confidence_reason']}"
    return f"How sure: {trust:.2f}. {evidence['confidence_reason']}"
