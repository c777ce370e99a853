"""Names that a defect may bear: those that the pack was taught by showing, then the cards whose look fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sage_ad.evaluation.inspection import Candidate

if TYPE_CHECKING:
    from sage_ad.agents.resources import View
    from sage_ad.knowledge.store.cards import DefectCard
    from sage_ad.vlm.evidence.extractor import EvidenceExtractor

LISTED = 5
"""So many cards are listed at most."""


def taught_names(
    view: View, domain: str, product: str | None, extractor: EvidenceExtractor
) -> tuple[list[Candidate], str | None]:
    """Names from the pack's taught pictures, the likeliest first, and the one that is asserted; none if none was shown."""
    from sage_ad.knowledge.looks.naming import candidates

    naming = None if product is None else candidates(domain, product, view.image, view.evidence, extractor)
    if naming is None:
        return [], None
    found = [
        Candidate(
            name=own.name,
            probability=round(own.probability, 4),
            source="looks",
            reason=f"like {own.agree} of your {own.examples} example{'s' * (own.examples != 1)}",
        )
        for own in naming.candidates
    ]
    return found, naming.asserted


def fitting_cards(
    regions: Sequence[dict[str, Any]], cards: Sequence[DefectCard], product: str | None
) -> list[Candidate]:
    """The pack's cards whose look fits the most telling region best; cards of its other products are left out.

    Args:
        regions: `TraceRegion` dumps with what was measured there, the most telling first.
        cards: of the pack.
        product: name of the product, if known.
    """
    from sage_ad.knowledge.looks.card_match import ranked_cards
    from sage_ad.vlm.evidence.description import Description

    if not regions or not cards:
        return []
    name = (product or "").casefold()
    own = [card for card in cards if not card.products or any(known.casefold() in name for known in card.products)]
    fitting = ranked_cards(own or cards, Description.from_dict(regions[0]["measured"]), len(regions))
    return [
        Candidate(name=card.name, source="cards", reason=f"its look fits what was measured ({fit:.2f})")
        for card, fit in fitting[:LISTED]
    ]
