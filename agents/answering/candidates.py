"""Names that a defect may bear: those that the pack was taught by showing.

The pack's cards are not ranked by how their look fits what was measured: that was tried and no better than chance
(docs/looks.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage_ad.evaluation.inspection import Candidate

if TYPE_CHECKING:
    from sage_ad.agents.resources import View
    from sage_ad.vlm.evidence.extractor import EvidenceExtractor


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
