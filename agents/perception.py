"""What is measured on a part, in the values of the agent's state; needs neither graph nor language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from sage_ad.agents.answering import wording
from sage_ad.agents.resources import Resources
from sage_ad.evaluation.inspection import InspectionRequest, measured, trace_regions
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
    told = trace_regions(seen.regions, view.descriptions, settings["mm_per_pixel"])
    found["regions"] = regions = [region.model_dump(mode="json") for region in told]
    given = {"score": found.pop("anomaly_score"), **found, "size": list(view.image.size)}
    given["references"] = len(view.references)
    height, width = seen.map.shape
    row, column = divmod(int(seen.map.argmax()), width)
    given["peak"] = place_of_box((column, row, column + 1, row + 1), width, height)
    evidence = cast("EvidenceSummary", given)
    appearances = [own.in_brief() for own in view.descriptions]
    where = f"{len(regions)} region{'s' * (len(regions) != 1)} ({wording.join(wording.places(evidence))})"
    scored = f"score {evidence['score']:.3f} against threshold {evidence['threshold']:.3f}"
    summary = f"{scored}: {evidence['verdict']}, {where if regions else 'no region'}"
    if view.brightness is not None:
        summary += f". {view.brightness.sentence}"
    return {"evidence": evidence, "appearances": appearances, "warnings": [*view.notes, *seen.warnings]}, summary
