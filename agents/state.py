"""State of one inspection as it walks through the graph: plain JSON values only, so that any checkpointer can keep it.

Pictures, feature maps and models stay in the `Resources` (the graph's context); the state names what was found.
"""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from sage_ad.evaluation.inspection import Verdict


class EvidenceSummary(TypedDict):
    """What perceive found, without the pixels.

    `regions` are `TraceRegion` dumps, `size` is [width, height], `peak` the place of the highest evidence, `references` how
    many good parts were compared.
    """

    score: float
    threshold: float
    threshold_from: str
    threshold_reason: str
    verdict: Verdict
    confidence: float | None
    confidence_reason: str
    regions: list[dict[str, Any]]
    size: list[int]
    peak: str
    references: int


class InspectionState(TypedDict, total=False):
    """Keys that the nodes read and write.

    Attributes:
        request: the `InspectionRequest` as JSON values; `settings`: the checked `AgentSettings` of this request.
        evidence: what perceive found; `appearances`: its regions in measured words ("dark elongated line").
        domain, product: resolved by recall; None stays None, nothing is invented.
        covered: whether recall covers the object; `recall_note` says how the pack was chosen.
        facts: all facts so far (`TraceFact` dumps), recalled ones first; a node returns the whole new list.
        prompt_facts: ids of the facts that reach the answer.
        defect: name of the defect that is asserted, or None; `candidates`: `Candidate` dumps, the likeliest first;
            `taught_as`: the defect as which this very picture was taught, where the evidence calls the part normal.
        explanation: the report, a sentence or two a line; `cited`: ids of the facts that it cites.
        answers: `TraceAnswer` dumps; `measured`: the questions among them that no model answered.
        round: how often the agent has answered; `retry_reason`: why the last round failed, None when it passed.
        steps, warnings: appended to by each node.
    """

    request: dict[str, Any]
    settings: dict[str, Any]
    evidence: EvidenceSummary
    appearances: list[str]
    domain: str | None
    product: str | None
    covered: bool
    recall_note: str
    facts: list[dict[str, Any]]
    prompt_facts: list[str]
    defect: str | None
    candidates: list[dict[str, Any]]
    taught_as: str | None
    explanation: str
    cited: list[str]
    answers: list[dict[str, Any]]
    measured: list[str]
    round: int
    retry_reason: str | None
    steps: Annotated[list[dict[str, Any]], operator.add]
    warnings: Annotated[list[str], operator.add]
