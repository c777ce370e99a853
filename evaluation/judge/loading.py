"""What a judge is: an answer with all it may be held against goes in, a Multiscale Logical Evaluation comes out.

Two judges stand behind the protocol `Judge`: the deterministic local one (`sage_ad.evaluation.judge.local`) and a language
model behind an OpenAI-compatible endpoint (`sage_ad.evaluation.judge.llm`). Both follow `rubric.yaml`. An answer that cannot be
judged comes back with null levels and the reason in `MLEScore.unscored`; no judge invents a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sage_ad.evaluation.inspection import Family, MLEScore, Shape, Verdict
from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    import numpy as np

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
    truth is what was measured: the mask if given, else `evidence_verdict` and `regions`; and the facts.

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


def load_judge(name: str = LOCAL_JUDGE, **settings: Any) -> Judge:
    """Makes a judge by name.

    Args:
        name: "local", or the URL of an OpenAI-compatible endpoint ("http://host:port/v1#model").
        settings: passed to the judge's constructor.

    Raises:
        InputError: the name is neither.
    """
    if name == LOCAL_JUDGE:
        from sage_ad.evaluation.judge.local import LocalJudge

        return LocalJudge(**settings)
    if name.startswith(("http://", "https://")):
        from sage_ad.evaluation.judge.llm import LLMJudge

        return LLMJudge(name, **settings)
    raise InputError(
        f"There is no judge named {name!r}: use 'local', or the URL of an OpenAI-compatible server such as "
        "http://localhost:8000/v1#model."
    )
