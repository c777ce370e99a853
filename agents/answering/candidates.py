"""Names that a defect may bear: those that the pack was taught by showing, then the cards whose appearance fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sage_ad.evaluation.inspection import Candidate

if TYPE_CHECKING:
    from sage_ad.agents.resources import View
    from sage_ad.knowledge.store.cards import DefectCard

LISTED = 5
"""So many cards are listed at most."""


def candidates(
    view: View, regions: Sequence[dict[str, Any]], cards: Sequence[DefectCard], product: str | None
) -> list[dict[str, Any]]:
    """`Candidate` dumps, the likeliest first.

    Args:
        view: the part and its evidence.
        regions: the evidence's regions with what was measured there, the most telling first.
        cards: of the pack.
        product: name of the product, if known; cards of other products of the pack are left out.
    """
    from sage_ad.knowledge.looks.card_match import ranked_cards
    from sage_ad.vlm.evidence.description import Description

    if not regions or not cards:
        return []
    name = (product or "").casefold()
    own = [card for card in cards if not card.products or any(known.casefold() in name for known in card.products)]
    fitting = ranked_cards(own or cards, Description.from_dict(regions[0]["measured"]), len(regions))
    return [
        Candidate(
            name=card.name, source="cards", reason=f"its appearance fits what was measured ({fit:.2f})"
        ).model_dump()
        for card, fit in fitting[:LISTED]
    ]


def asserted(found: Sequence[dict[str, Any]]) -> str | None:
    """The name that is asserted, or None."""
    return None
