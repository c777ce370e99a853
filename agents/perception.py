"""What is measured on a part, in the values of the agent's state; needs neither graph nor language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from sage_ad.agents.answering import wording
from sage_ad.agents.resources import Resources
from sage_ad.evaluation.inspection import InspectionRequest, measured
from sage_ad.vlm.evidence.description import describe
from sage_ad.vlm.places import place_of_box

if TYPE_CHECKING:
    from sage_ad.agents.state import EvidenceSummary


def measure_part(
    request: InspectionRequest, settings: Mapping[str, Any], resources: Resources
) -> tuple[dict[str, Any], str]:
    """Evidence, described regions and warnings of a part, and a sentence that sums them up.

    Args:
        request: the part; its references are files.
        settings: `AgentSettings` values.
        resources: measures.
    """
    view = resources.view(request.image, request.references)
    seen = view.evidence
    found = measured(seen)
    regions = [region.model_dump(mode="json") for region in found.pop("regions")]
    given = {"score": found.pop("anomaly_score"), **found, "regions": regions, "size": list(view.image.size)}
    height, width = seen.map.shape
    row, column = divmod(int(seen.map.argmax()), width)
    given["peak"] = place_of_box((column, row, column + 1, row + 1), width, height)
    evidence = cast("EvidenceSummary", given)
    described = describe(view.image, seen.map, seen.regions, view.references)
    for region, own in zip(regions, described, strict=True):
        region |= {"description": own.in_words(settings["mm_per_pixel"]), "measured": own.to_dict()}
    appearances = [own.in_brief() for own in described]
    where = f"{len(regions)} region{'s' * (len(regions) != 1)} ({wording.join(wording.places(evidence))})"
    scored = f"score {evidence['score']:.3f} against threshold {evidence['threshold']:.3f}"
    summary = f"{scored}: {evidence['verdict']}, {where if regions else 'no region'}"
    if view.brightness is not None:
        summary += f". {view.brightness.sentence}"
    return {"evidence": evidence, "appearances": appearances, "warnings": [*view.notes, *seen.warnings]}, summary
