"""The shapes that cross rooms: what an inspection is asked (`InspectionRequest`) and what it gives (`InspectionTrace`).

An `Inspector` is anything that turns the one into the other. The agent of `agents` is one; a user's own is found
through the entry-point group `sage.inspectors` and measured by `sage-eval --inspector NAME` like ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticSerializationError

from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from sage_ad.vlm.evidence.description import Description
    from sage_ad.vlm.evidence.extractor import Evidence
    from sage_ad.vlm.evidence.regions import EvidenceRegion


Verdict = Literal["normal", "anomalous"]
Family = Literal["standard comparison", "defect identification", "defect diagnosis"]
FAMILIES: tuple[Family, ...] = ("standard comparison", "defect identification", "defect diagnosis")
INSPECTOR_GROUP = "sage.inspectors"


class Shape(BaseModel):
    """Base of the shapes: unknown keys are refused, so that a misspelt key is an error and not a silent loss."""

    model_config = ConfigDict(extra="forbid")


class InspectionRequest(Shape):
    """One part to be looked at.

    Attributes:
        image: file of the test image.
        references: files of good parts of the same product (none, one or several).
        questions: questions to answer beside the explanation; the five standard ones are
            `sage_ad.evaluation.questions.standard_questions()`.
        domain: name of a knowledge pack; None searches all packs.
        product: name of the product if the user knows it; it is never invented.
        settings: settings of the inspector at hand (for ours: `AgentSettings` fields), checked by it.
    """

    image: Path
    references: list[Path] = Field(default_factory=list)
    questions: list[str] = Field(default_factory=list)
    domain: str | None = None
    product: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


class TraceRegion(Shape):
    """A region of the test image that stands out.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the original image, x1 and y1 exclusive.
        place: the place in words on a 3 x 3 grid ("upper left", "centre", ...).
        score: the highest evidence inside the box, on the scale of `anomaly_score`.
        description: what was measured there, in words (`sage_ad.vlm.evidence.description`); empty if nothing was.
        measured: the same in numbers.
    """

    box: tuple[int, int, int, int]
    place: str
    score: float
    description: str = ""
    measured: dict[str, Any] = Field(default_factory=dict)


class Candidate(Shape):
    """A name that the defect may bear.

    Attributes:
        name: the defect.
        probability: calibrated, from the pack's taught looks; null where a model said so.
        source: "looks" (pictures that the pack was shown) or "model" (a model that sees the picture said so).
        reason: half a sentence that says why ("like 3 of your 3 examples").
    """

    name: str
    probability: float | None = None
    source: Literal["looks", "model"]
    reason: str = ""


class MLEScore(Shape):
    """Multiscale Logical Evaluation of one answer (Eq. 3): three levels from 1 to 5 and their mean.

    An answer that could not be judged has null levels and says why in `unscored`; it never counts as a number.
    `localisation` alone is null when nothing can be said of place (no mask, no map); the mean is then over the others.

    `basis` says what the answer was held against. A "self-check" is against SAGE's own measurement: `type` and `mean` are
    null, for nobody knows which defect it is, `unscored` says so, and the other levels are numbers only where these are
    known to follow the levels with gold (`sage_ad.evaluation.judge.self_check`).
    """

    type: int | None = Field(default=None, ge=1, le=5)
    localisation: int | None = Field(default=None, ge=1, le=5)
    logic: int | None = Field(default=None, ge=1, le=5)
    mean: float | None = Field(default=None, ge=1, le=5)
    deductions: list[str] = Field(default_factory=list)
    unscored: str | None = None
    basis: Literal["gold", "self-check"] = "gold"

    @property
    def decisive(self) -> float | None:
        """The number that decides whether an answer passes: the mean, in a self-check the lowest level; None without any."""
        levels = [level for level in (self.type, self.localisation, self.logic) if level is not None]
        return self.mean if self.mean is not None else min(levels, default=None)


class TraceAnswer(Shape):
    """The answer to one question; `verdict` is true or false *for the question as asked*, null if it is no yes/no question."""

    question: str
    family: Family
    verdict: bool | None
    text: str
    facts: list[str] = Field(default_factory=list)
    mle: MLEScore | None = None


class TraceFact(Shape):
    """A fact that was recalled or written for this inspection; `score` is its retrieval score (higher is nearer)."""

    id: str
    text: str
    kind: str
    source: str
    status: Literal["approved", "proposed", "rejected"]
    score: float | None = None


class TraceStep(Shape):
    """One step of the inspection, with its time and what it found in a sentence."""

    name: str
    seconds: float
    summary: str


class InspectionTrace(Shape):
    """Everything an inspection found, and how; its JSON is what `sage-inspect --json` prints.

    Attributes:
        anomaly_score: on the absolute scale of `sage_ad.vlm.evidence.extractor` (higher is more anomalous).
        threshold: the score above which the verdict is "anomalous".
        threshold_from: "references" (their self-similarity), "batch" (the other parts of the batch) or "builtin" (neither);
            `threshold_reason` says how.
        confidence: trust in the verdict, 0.5 to 1; null when it cannot be told, `confidence_reason` says why or how.
        defect: the defect's name, if one is asserted; null for a normal part, and where no name was taught.
        candidates: names that it may bear, the likeliest first.
        explanation: what was found and what follows, a sentence or two a line.
        cited: ids of the facts (in `facts`) that the explanation cites.
        warnings: sentences about input that was read but is doubtful (a reference of another product, ...).
    """

    image: str
    references: list[str] = Field(default_factory=list)
    product: str | None = None
    domain: str | None = None
    anomaly_score: float
    threshold: float
    threshold_from: Literal["references", "batch", "builtin"]
    threshold_reason: str = ""
    verdict: Verdict
    confidence: float | None = None
    confidence_reason: str = ""
    defect: str | None = None
    candidates: list[Candidate] = Field(default_factory=list)
    explanation: str = ""
    cited: list[str] = Field(default_factory=list)
    regions: list[TraceRegion] = Field(default_factory=list)
    answers: list[TraceAnswer] = Field(default_factory=list)
    facts: list[TraceFact] = Field(default_factory=list)
    steps: list[TraceStep] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    model: str
    seconds: float

    def to_json(self, indent: int | None = 2) -> str:
        """The trace as JSON text; `from_json` gives an equal trace back."""
        try:
            return self.model_dump_json(indent=indent)
        except PydanticSerializationError:  # bytes of a file name that are no characters become question marks
            text = json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=indent)
            return text.encode(errors="replace").decode()

    @classmethod
    def from_json(cls, text: str) -> InspectionTrace:
        """Reads a trace; raises `InputError` with the first thing that is wrong."""
        from pydantic import ValidationError

        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the top level"
            raise InputError(
                f"This is no inspection trace: {first['msg']} at {place}; give the JSON of `sage-inspect --json`."
            ) from None


MEASURED = (
    "threshold", "threshold_from", "threshold_reason", "verdict", "confidence", "confidence_reason",
)  # fmt: skip
"""Fields of a trace that go by the same name in the `Evidence` of a picture."""


def trace_regions(
    regions: Iterable[EvidenceRegion], descriptions: Sequence[Description] = (), mm_per_pixel: float | None = None
) -> list[TraceRegion]:
    """Regions as a trace holds them, with their descriptions (none, or one each)."""
    told = [TraceRegion(box=region.box, place=region.place, score=float(region.score)) for region in regions]
    for region, own in zip(told if descriptions else (), descriptions, strict=True):
        region.description, region.measured = own.in_words(mm_per_pixel), own.to_dict()
    return told


def measured(evidence: Evidence) -> dict[str, Any]:
    """What was measured on a picture, as the fields of its `InspectionTrace`."""
    fields = {name: getattr(evidence, name) for name in MEASURED}
    fields |= {"anomaly_score": float(evidence.score), "threshold": float(evidence.threshold)}
    return {**fields, "regions": trace_regions(evidence.regions)}


def about(request: InspectionRequest, references: Iterable[Path] | None = None) -> dict[str, Any]:
    """What a request says of its part, as the fields of its `InspectionTrace`; `references` are those really used."""
    paths = request.references if references is None else references
    return {
        "image": str(request.image),
        "references": [str(path) for path in paths],
        "product": request.product,
        "domain": request.domain,
    }


@runtime_checkable
class Inspector(Protocol):
    """Turns requests into traces.

    `inspect_many` may share work between requests and keeps their order. Without more arguments each part is judged by itself
    and its references; `sage_ad.agents.SageInspector` also compares parts with one another (`compare=True`).
    """

    def inspect(self, request: InspectionRequest) -> InspectionTrace: ...

    def inspect_many(self, requests: Iterable[InspectionRequest]) -> Iterator[InspectionTrace]: ...


def load_inspector(name: str = "sage", **settings: Any) -> Inspector:
    """Makes the inspector that is registered under `name` in the entry-point group `sage.inspectors`.

    Raises:
        InputError: no such inspector; the message lists those that exist.
    """
    found = {point.name: point for point in entry_points(group=INSPECTOR_GROUP)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise InputError(
            f"There is no inspector named {name!r} (known: {known}); "
            f"register it as an entry point of the group {INSPECTOR_GROUP!r} or name a known one."
        )
    return found[name].load()(**settings)


LOCAL_JUDGE = "local"


class Gold(Shape):
    """What is known to be right about one question (any field may be null, when it is not known).

    Attributes:
        verdict: the right answer to the question as asked: true or false.
        anomalous: whether the part is defective, whatever the question asks.
        defect: name of the defect ("scratch"); null for a normal part.
        place: where it is, in words ("upper left").
        reference_answer: a right answer in full sentences.
    """

    verdict: bool | None = None
    anomalous: bool | None = None
    defect: str | None = None
    place: str | None = None
    reference_answer: str | None = None


@dataclass(frozen=True)
class JudgeRequest:
    """One answer to be judged, with what it is held against.

    With `gold` the answer is held against it (and a mask, if there is one, decides about the place). Without, the
    standard is what was measured: the mask if given, else `evidence_verdict` and `regions`; and the facts.

    Attributes:
        question: the question as asked.
        answer: the answer, free text.
        family: the question's family; None lets the judge tell it from the question.
        gold: what is right, if known.
        facts: texts of the facts that the answer could cite.
        object: name of the product, if known.
        mask: bool array (H, W), true where the defect is; an empty mask means a normal part.
        regions: regions of the evidence map, best first: anything with `box` (x0, y0, x1, y1 in pixels) and `place`,
            or plain boxes; an empty sequence says that nothing stood out.
        evidence_verdict: "normal" or "anomalous", as measured.
        image_size: width and height in pixels; needed to place boxes that carry no `place`.
        image: file of the test image, for judges that can look at it (the local one cannot).
    """

    question: str
    answer: str
    family: Family | None = None
    gold: Gold | None = None
    facts: Sequence[str] = field(default_factory=tuple)
    object: str | None = None
    mask: np.ndarray | None = None
    regions: Sequence[Any] | None = None
    evidence_verdict: Verdict | None = None
    image_size: tuple[int, int] | None = None
    image: str | None = None


@runtime_checkable
class Judge(Protocol):
    """Scores answers; the scores come in the order of the requests, one each."""

    name: str

    def judge(self, requests: Sequence[JudgeRequest]) -> list[MLEScore]: ...
