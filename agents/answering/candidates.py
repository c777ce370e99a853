"""Names that a defect may bear: those that the pack was taught by showing.

The pack's cards give no name by how their look fits what was measured: that was tried and no better than chance
(docs/looks.md). They only say which facts are looked up first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sage_ad.evaluation.inspection import Candidate

if TYPE_CHECKING:
    from sage_ad.agents.resources import View
    from sage_ad.vlm.evidence.extractor import EvidenceExtractor

_SHAPES = {"line": "line", "ring": "ring", "round spot": "blob", "spot": "blob", "area": "area"}
_SIZES = ((0.001, "tiny"), (0.01, "small"), (0.1, "medium"))
"""Share of the picture below which a region is of a size, see `sage_ad.knowledge.store.cards.Size`."""


def look_words(measured: Mapping[str, Any]) -> dict[str, str]:
    """Tone, shape and size of a region in the words of a card's look; none where no pixels stand out.

    Args:
        measured: `sage_ad.vlm.evidence.description.Description` as JSON has it, or nothing.
    """
    from sage_ad.vlm.evidence.description import TONE

    if (tone := measured.get("tone")) is None:
        return {}
    return {
        "tone": "same" if abs(tone) < TONE else "darker" if tone < 0 else "lighter",
        "shape": _SHAPES[measured["shape"]],
        "size": next((size for share, size in _SIZES if measured["share"] < share), "large"),
    }


def taught_names(
    view: View, domain: str, product: str | None, extractor: EvidenceExtractor
) -> tuple[list[Candidate], str | None]:
    """Names from the pack's taught pictures, the likeliest first, and the one that is asserted; none if none was shown."""
    from sage_ad.knowledge.looks.naming import candidates

    if product is None:
        return [], None
    naming = candidates(domain, product, view.image, view.evidence, extractor, references=view.references)
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
