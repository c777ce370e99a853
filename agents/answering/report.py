"""The explanation of an inspection: what, where, how large, what it may be, what follows, how sure. Each word has a source.

A sentence states what was measured (`sage_ad.vlm.evidence.description`), what was taught by showing (the pack's looks), or
what the pack says, which it cites. Nothing is asserted of a defect that was not taught.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sage_ad.agents.answering.wording import NAMED_REGIONS, join
from sage_ad.agents.state import EvidenceSummary
from sage_ad.evaluation.questions import with_article
from sage_ad.vlm.evidence.description import POOR_MATCH, orientation_word

if TYPE_CHECKING:
    from sage_ad.knowledge.store.cards import DefectCard

Cards = Mapping[str, "DefectCard"]
"""The defect cards of the pack that serves the product, by name; empty where no pack knows it."""
LISTED = 3
"""So many taught names are listed where none is asserted."""
POSSIBLE = 0.01
"""Probability from which another name stands beside the asserted one."""
MOST = 0.5
"""Share of the picture from which an area without a description speaks against the picture rather than the part."""
UNSURE = 0.6
"""Confidence below which a verdict is called borderline."""


def explanation(
    evidence: EvidenceSummary,
    *,
    product: str | None,
    defect: str | None,
    candidates: Sequence[dict[str, Any]],
    cards: Cards,
    facts: Sequence[dict[str, Any]],
    taught_as: str | None = None,
) -> tuple[str, list[str]]:
    """The explanation, a sentence or two a line, and the ids of the facts that it cites.

    Args:
        evidence: what was measured; its regions carry their description.
        product: name of the product, if known.
        defect: the name that is asserted, or None.
        candidates: `Candidate` dumps, the likeliest first.
        cards: `Cards`.
        facts: recalled facts, the most fitting first.
        taught_as: the defect as which this very picture was taught.
    """
    lines = [verdict_line(evidence, product)]
    cited: list[str] = []
    if evidence["verdict"] == "anomalous":
        lines += _places(evidence)
        if defect is not None or not _differs_as_a_whole(evidence):
            lines.append(name_line(defect, candidates, product, cards))
        lines += consequence_lines(defect, cards, facts, cited)
        lines.append(action_line(defect, cards, evidence))
    else:
        if taught_as is not None:
            lines.append(unseen_line(taught_as))
        lines.append(f"Closest to the threshold: {evidence['peak']}.")
    lines.append(trust_line(evidence))
    return "\n".join(lines), cited


def verdict_line(evidence: EvidenceSummary, product: str | None) -> str:
    """The verdict with its score and the threshold."""
    thing = f"The {product}" if product else "The part"
    score, threshold = (f"{evidence[name]:.2f}" for name in ("score", "threshold"))
    if score == threshold:
        score, threshold = (f"{evidence[name]:.4f}" for name in ("score", "threshold"))
    if evidence["threshold_from"] == "references":
        against = f"the threshold for good parts is {threshold}"
    elif evidence["threshold_from"] == "batch":
        against = f"the threshold from its batch is {threshold}"
    else:
        against = f"the built-in threshold is {threshold}, because there was no good part to compare with"
    close = evidence["confidence"] is not None and evidence["confidence"] < UNSURE
    return f"{thing} is {evidence['verdict']}{', narrowly' if close else ''}: its score is {score}, {against}."


def unseen_line(taught_as: str) -> str:
    """What is said of a normal part whose very picture was taught as a defect."""
    return f"This picture was taught as {with_article(taught_as)}, which the evidence does not see."


def _places(evidence: EvidenceSummary) -> list[str]:
    """A line for each of the first regions."""
    shown = evidence["regions"]
    lines: list[str] = []
    alike: dict[tuple[Any, ...], list[tuple[str, str]]] = {}  # place and description of measured marks, by their look
    plain: dict[str, list[str]] = {}  # sizes of the areas without a measured mark, by place
    against = ""
    for own in shown[:NAMED_REGIONS]:
        what, found, than = own["description"].removeprefix("area, ").partition(POOR_MATCH)
        against = than or against
        if not found:
            alike.setdefault(_look(own["measured"]), []).append((own["place"], what))
        elif own["measured"]["share"] >= MOST:
            lines.append(f"Most of the picture matches {than} poorly.")
        else:
            # Millimetres stand in brackets, too.
            plain.setdefault(own["place"], []).append(what.replace(" (", ", ").replace(")", ""))
    for (place, what), *others in alike.values():
        elsewhere = [f"the {other}" for other in dict.fromkeys(other for other, _ in others) if other != place]
        more = f"; {len(others)} more like it" if others else ""
        lines.append(f"{sentence_case(place)}: {what}{more}{f', in {join(elsewhere)}' if elsewhere else ''}.")
    if plain:
        where = join([f"{place} ({join(sizes)})" for place, sizes in plain.items()])
        lines.append(f"{sentence_case(where)}: poor match with {against}; no mark could be measured.")
    rest = len(shown) - NAMED_REGIONS
    return [*lines, f"{rest} more area{'s are' if rest > 1 else ' is'} marked."] if rest > 0 else lines


def _differs_as_a_whole(evidence: EvidenceSummary) -> bool:
    """Whether the strongest region is most of the picture and shows no mark: then the picture is odd, and not the part."""
    first = evidence["regions"][0] if evidence["regions"] else None
    return first is not None and POOR_MATCH in first["description"] and first["measured"]["share"] >= MOST


def _look(measured: Mapping[str, Any]) -> tuple[Any, ...]:
    """What two marks share that are told as one: colour, shape, direction, lighter or darker, missing."""
    angle, tone = measured["angle"], measured["tone"]
    return (
        measured["colour_name"],
        measured["shape"],
        angle is not None and orientation_word(angle),
        tone is not None and tone > 0,
        measured.get("missing"),
    )


def name_line(defect: str | None, candidates: Sequence[dict[str, Any]], product: str | None, cards: Cards) -> str:
    """What the defect is called, or why it has no name; the arguments are those of `explanation`."""
    taught = [item for item in candidates if item["source"] == "looks"]
    said = [item for item in candidates if item["source"] == "model"]
    if defect is not None:
        best = next(item for item in taught if item["name"] == defect)
        possible = [item for item in taught if item["name"] != defect and item["probability"] >= POSSIBLE]
        others = [f"{item['name']} ({item['probability']:.2f})" for item in possible[:2]]
        also = f"; else {join(others)}" if others else ""
        return f"Most likely {with_article(defect)} ({best['probability']:.2f}, {best['reason']}){also}."
    if taught:
        names = join([f"{item['name']} ({item['probability']:.2f})" for item in taught[:LISTED]])
        # The probabilities of the taught names and of none of them add up to one.
        best = taught[0]["probability"]
        none, limit = 1 - sum(item["probability"] for item in taught), _asserted_from(best)
        if len(taught) == 1:
            what = with_article(taught[0]["name"])
            return f"Whether it is {what} is not sure ({best:.2f}): nothing else was taught, and {limit}."
        if none > best:
            return f"It is probably none of the taught defects ({none:.2f}); the likeliest of them: {names}; {limit}."
        return f"It is not sure which of the taught defects it is: {names}; {limit}."
    if said:
        return f"{sentence_case(said[0]['reason'])} that it is {with_article(said[0]['name'])}; nothing taught confirms it."
    if not cards and product is None:
        return "No product was named, so no pack was asked which defect it is; name the product."
    thing = product or "this product"
    if not cards:
        return (
            f"No pack knows {thing}, so the defect has no name; choose a pack, or begin one with your manual and a few "
            "pictures of the defect."
        )
    return "The name of the defect was not taught; three pictures of such a defect teach it."


def _asserted_from(best: float) -> str:
    """What the likeliest name lacks to be asserted."""
    from sage_ad.knowledge.looks.index import ASSERTED

    return f"a name is asserted from {f'{ASSERTED:.2f}' if best < ASSERTED else 'its second example'} on"


def sentence_case(text: str) -> str:
    """A text with its first letter as a capital, and the others as they are."""
    return text[:1].upper() + text[1:]


def card_of(defect: str | None, cards: Cards) -> DefectCard | None:
    """The card of a defect by any of its names: people teach looks under names of their own."""
    name = (defect or "").casefold()
    return next((card for card in cards.values() if name in {own.casefold() for own in card.term.names}), None)


def consequence_lines(defect: str | None, cards: Cards, facts: Sequence[dict[str, Any]], cited: list[str]) -> list[str]:
    """What follows from the asserted defect, by a fact or its card; nothing where none is asserted."""
    if defect is None:
        return []
    if about := facts_about(defect, cards, facts, "consequence"):
        return _cite(about, cited)
    card = card_of(defect, cards)
    return [card.consequence] if card else []


def facts_about(defect: str, cards: Cards, facts: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The facts of a kind about a defect, by any name of its card."""
    card = card_of(defect, cards)
    names = {defect, card.name if card else defect}
    return [fact for fact in facts if fact["kind"] == kind and names.intersection(fact.get("defects", ()))]


def action_line(defect: str | None, cards: Cards, evidence: EvidenceSummary) -> str:
    """What to do with the part: what the card of the asserted defect says, else to look at it, or at how it was taken."""
    if (card := card_of(defect, cards)) is not None:
        standard = f" ({', '.join(card.standards)})" if card.standards else ""
        return f"What to do: {card.action.rstrip('.')}{standard}."
    if _differs_as_a_whole(evidence):
        return "What to do: check that product, view and light are those of the good parts, and inspect it again."
    return "What to do: have the marked areas checked by eye."


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
    return f"How sure: {'over 0.99' if trust > 0.99 else f'{trust:.2f}'}. {evidence['confidence_reason']}"
