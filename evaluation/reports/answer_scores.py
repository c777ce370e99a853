"""Scores answers: right or wrong, the judge's levels, place against mask, the defect's name, similarity to the reference.

One `AnswerRow` is one answer with everything that is known about it; figures are computed from rows alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sage_ad.evaluation.datasets import InspectionDataset, Sample, load_mask
from sage_ad.evaluation.datasets.masks import upright_size
from sage_ad.evaluation.inspection import InspectionRequest, InspectionTrace, TraceAnswer, Verdict
from sage_ad.evaluation.questions import GoldQuestion, state_of
from sage_ad.evaluation.runs import CellCache, cell_key, code_hash
from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from sage_ad.evaluation.inspection import Judge, JudgeRequest


@dataclass(frozen=True)
class Task:
    """One image to ask about: its record, its questions with what is right, and the request for the inspector."""

    sample: Sample
    questions: tuple[GoldQuestion, ...]
    request: InspectionRequest


@dataclass
class AnswerRow:
    """One answer with what is right and how it was scored.

    Attributes:
        image: id of the image (Acc-G is per image).
        anomalous: state of the part; for sets without labels, what the right answer to this question implies.
        gold: right verdict for the question as asked; None if it is no yes/no question.
        verdict: the verdict given; read from the text if the inspector left it open.
        right: whether the answer is right; None where nothing decides.
        sbert: cosine similarity to the reference answer.
        placed: whether the place it names touches the defect; None where no place is known or asked.
        named: whether the defect is named right; None where its name is unknown or it was not asked.
        mle: levels, mean and deductions of the judge, or None.
        unscored: why there are no levels.
    """

    image: str
    file: str
    category: str
    defect: str
    anomalous: bool
    family: str
    question: str
    polarity: Verdict | None
    gold: bool | None
    verdict: bool | None
    right: bool | None
    text: str
    reference_answer: str
    subtask: str | None = None
    sbert: float | None = None
    placed: bool | None = None
    named: bool | None = None
    mle: dict[str, Any] | None = None
    unscored: str | None = None


@dataclass
class ImageRow:
    """One inspected image: what the inspector measured, beside the label (None: the set has no label for it)."""

    image: str
    file: str
    references: list[str]
    category: str
    anomalous: bool | None
    score: float
    threshold: float
    verdict: Verdict
    confidence: float | None
    seconds: float


@dataclass
class Answers:
    """Everything that one inspector said about a set."""

    inspector: str
    model: str
    rows: list[AnswerRow] = field(default_factory=list)
    images: list[ImageRow] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def verdict_given(answer: TraceAnswer, question: GoldQuestion) -> bool | None:
    """The verdict of an answer: the inspector's own field, else what its text says of the part."""
    if answer.verdict is not None or question.polarity is None:
        return answer.verdict
    from sage_ad.evaluation.text.answer_parser import read
    from sage_ad.evaluation.text.stated_verdict import spoken_verdict

    state = spoken_verdict(read(answer.text, question.text), question.polarity).state
    return None if state is None else state == question.polarity


def rows_of(task: Task, trace: InspectionTrace) -> list[AnswerRow]:
    """One row an answer, right or wrong decided; levels and similarities are filled in later."""
    rows = []
    for question, answer in zip(task.questions, trace.answers, strict=True):
        verdict = verdict_given(answer, question)
        anomalous = task.sample.anomalous
        if anomalous is None:
            anomalous = question.anomalous if question.polarity else bool(question.verdict)
        rows.append(
            AnswerRow(
                image=task.sample.id,
                file=str(task.sample.image.resolve()),
                category=task.sample.category,
                defect=task.sample.defect,
                anomalous=anomalous,
                family=question.family,
                question=question.text,
                polarity=question.polarity,
                gold=question.verdict,
                verdict=verdict,
                # An answer that decides nothing is a wrong answer to a yes/no question.
                right=None if question.verdict is None else verdict == question.verdict,
                text=answer.text,
                reference_answer=question.reference_answer,
                subtask=question.subtask,
            )
        )
    return rows


def image_row(task: Task, trace: InspectionTrace) -> ImageRow:
    """What was measured on the image as a whole."""
    return ImageRow(
        image=task.sample.id,
        file=str(task.sample.image.resolve()),
        references=[str(path.resolve()) for path in task.request.references],
        category=task.sample.category,
        anomalous=task.sample.anomalous,
        score=trace.anomaly_score,
        threshold=trace.threshold,
        verdict=trace.verdict,
        confidence=trace.confidence,
        seconds=trace.seconds,
    )


def judge_requests(task: Task, trace: InspectionTrace, dataset: InspectionDataset) -> list[JudgeRequest]:
    """What the judge gets for each answer of an image: the gold answer, the mask, the facts that it could cite."""
    from sage_ad.evaluation.inspection import JudgeRequest

    size, mask = upright_size(task.sample.image), None
    if task.sample.anomalous:
        try:
            mask = load_mask(task.sample, size)
        except InputError as error:
            dataset.report(task.sample.image, str(error))
    texts = {fact.id: fact.text for fact in trace.facts}
    return [
        JudgeRequest(
            question=question.text,
            answer=answer.text,
            family=question.family,
            gold=question.gold(),
            facts=[texts[name] for name in answer.facts if name in texts],
            object=task.request.product,
            mask=mask,
            image_size=size,
            image=str(task.sample.image),
        )
        for question, answer in zip(task.questions, trace.answers, strict=True)
    ]


def add_scores(rows: Sequence[AnswerRow], requests: Sequence[JudgeRequest], judge: Judge) -> None:
    """Fills in the judge's levels, whether the place touches the mask, and whether the defect is named."""
    from sage_ad.evaluation.text.localisation import cells_of_mask, places_in

    for row, request, score in zip(rows, requests, judge.judge(requests), strict=True):
        if score.unscored:
            row.unscored = score.unscored
        else:
            row.mle = score.model_dump(exclude={"unscored"})
        if not row.anomalous or row.family != "defect identification":
            continue
        if request.mask is not None and request.mask.any():
            pointed = frozenset().union(*(place.cells for place in places_in(row.text)))
            # "Everywhere" touches every defect, so at most three cells (a row or a column) may be pointed at.
            row.placed = len(pointed) <= 3 and bool(pointed & cells_of_mask(request.mask))
        if request.gold is not None and request.gold.defect and score.type is not None:
            row.named = score.type == 5


def add_similarity(rows: Sequence[AnswerRow]) -> None:
    """Fills in the cosine similarity of each answer to its reference answer (MiniLM sentence embeddings)."""
    from sage_ad.knowledge.vectors.embedding import default_embedder

    known = [row for row in rows if row.reference_answer and row.text.strip()]
    if not known:
        return
    embedder = default_embedder()
    texts = list(dict.fromkeys(text for row in known for text in (row.text, row.reference_answer)))
    place = {text: number for number, text in enumerate(texts)}
    vectors = embedder.encode(texts)
    for row in known:
        row.sbert = round(float(vectors[place[row.text]] @ vectors[place[row.reference_answer]]), 4)


def score_batch(
    seen: Sequence[tuple[Task, InspectionTrace]], dataset: InspectionDataset, judge: Judge, cache: CellCache
) -> list[AnswerRow]:
    """Rows of some inspected images with the judge's scores; those that an earlier run kept are not judged again.

    Unscored answers are never kept, so that the next run tries them again.
    """
    rows = [rows_of(task, trace) for task, trace in seen]
    requests = [judge_requests(task, trace, dataset) for task, trace in seen]
    keys = [_score_key(judge, own, asked) for own, asked in zip(rows, requests, strict=True)]
    kept = [cache.get(key) for key in keys]
    todo = [place for place, values in enumerate(kept) if values is None]
    if todo:
        add_scores(
            [row for place in todo for row in rows[place]], [r for place in todo for r in requests[place]], judge
        )
    for place, (task, _) in enumerate(seen):
        for row, values in zip(rows[place], kept[place] or (), strict=False):
            row.mle, row.placed, row.named = values["mle"], values["placed"], values["named"]
        if place in todo and all(row.unscored is None for row in rows[place]):
            values = [{"mle": row.mle, "placed": row.placed, "named": row.named} for row in rows[place]]
            cache.put(keys[place], values)
        choose(task, rows[place])
    return [row for own in rows for row in own]


def _score_key(judge: Judge, rows: Sequence[AnswerRow], requests: Sequence[JudgeRequest]) -> str:
    return cell_key(
        kind="scores",
        judge=judge.name,
        rows=[(row.image, row.question, row.text, row.gold, row.defect, row.reference_answer) for row in rows],
        facts=[list(request.facts) for request in requests],
        mask=[_mask_digest(request.mask) for request in requests[:1]],
        code=code_hash("evaluation", "knowledge"),
    )


def _mask_digest(mask: np.ndarray | None) -> str | None:
    return None if mask is None else hashlib.sha256(mask.tobytes()).hexdigest()[:16]


def choose(task: Task, rows: Sequence[AnswerRow]) -> None:
    """Decides multiple-choice answers, which have a letter instead of a verdict."""
    from sage_ad.evaluation.reports.choices import choice_of

    for question, row in zip(task.questions, rows, strict=True):
        if question.options:
            row.right = choice_of(row.text, dict(question.options)) == question.letter


def state_said(row: AnswerRow) -> Verdict | None:
    """The state of the part that an answer asserts; None if it decides nothing."""
    if row.polarity is None or row.verdict is None:
        return None
    return state_of(row.polarity, row.verdict)
