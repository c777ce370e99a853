"""The plain way to use a language model, to measure ours against: evidence and facts as words in a prompt, free answers.

Registered as `language-model`. Nothing holds the model to the evidence, and its verdicts are read from its text, as one
reads the text of any chat model.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sage_ad.agents.resources import Resources
from sage_ad.agents.settings import make_settings
from sage_ad.evaluation.inspection import (
    InspectionRequest,
    InspectionTrace,
    TraceAnswer,
    TraceFact,
    TraceStep,
    Verdict,
    about,
    measured,
)
from sage_ad.evaluation.questions import Question, read_question, standard_questions
from sage_ad.vlm.images import expand_references

TASK = 'Begin your answer with "True." or "False.", then give the reason in one or two sentences.'


class LanguageModelInspector:
    """A language model asked plainly, as an `Inspector`.

    Args:
        resources: ready parts; by default they are made from the settings.
        **settings: fields of `sage_ad.agents.settings.AgentSettings` (`model`, `facts`: "none" leaves facts out, ...).
    """

    name = "language-model"

    def __init__(self, *, resources: Resources | None = None, **settings: Any) -> None:
        self.settings = make_settings(settings)
        self.resources = resources or Resources(self.settings)

    def inspect(self, request: InspectionRequest) -> InspectionTrace:
        """Inspects one part."""
        start = time.perf_counter()
        references = expand_references([Path(path) for path in request.references])
        view = self.resources.view(request.image, references)
        evidence = view.evidence
        questions = [read_question(text) for text in request.questions] or standard_questions()
        facts = self._facts(request)
        seen = time.perf_counter()
        prompts = [self._messages(question, facts, evidence) for question in questions]
        texts = self.resources.backend.generate_batch(
            prompts, max_new_tokens=self.settings.max_new_tokens, seed=self.settings.seed
        )
        answers = [_answer(question, text, facts) for question, text in zip(questions, texts, strict=True)]
        end = time.perf_counter()
        return InspectionTrace(
            **{
                **about(request, references),
                **measured(evidence),
                "verdict": _majority(questions, answers),
                "confidence": None,
                "confidence_reason": "The model says True or False and no more.",
            },
            answers=answers,
            facts=facts,
            steps=[
                TraceStep(name="perceive", seconds=seen - start, summary=view.summary),
                TraceStep(name="answer", seconds=end - seen, summary=f"{len(answers)} answers, unchecked."),
            ],
            warnings=[*view.notes, *evidence.warnings],
            model=self.resources.backend.name,
            seconds=end - start,
        )

    def inspect_many(self, requests: Iterable[InspectionRequest]) -> Iterator[InspectionTrace]:
        """Inspects parts in order."""
        for request in requests:
            yield self.inspect(request)

    def _facts(self, request: InspectionRequest) -> list[TraceFact]:
        if self.settings.facts == "none":
            return []
        match = self.resources.store.match_product(
            request.product or " ".join(request.questions), question=not request.product
        )
        hits = self.resources.store.search(
            " ".join(request.questions) or "normal or defective",
            domain=request.domain or match.domain,
            k=self.settings.fact_count,
            product=request.product,
        )
        return [
            TraceFact(
                id=hit.fact.id,
                text=hit.fact.text,
                kind=hit.fact.kind,
                source=hit.fact.source,
                status=hit.fact.status,
                score=round(float(hit.score), 4),
            )
            for hit in hits
        ]

    def _messages(self, question: Question, facts: list[TraceFact], evidence: Any) -> list[dict[str, Any]]:
        from sage_ad.knowledge.text.instructions import quote_fact
        from sage_ad.vlm.sage.prompts import measured_sentence

        place = evidence.regions[0].place if evidence.regions else None
        known = ["Facts about such parts:", *(quote_fact(fact.text) for fact in facts)] if facts else []
        measured = measured_sentence(evidence.score, evidence.threshold, place)
        evidence_text = f"{measured} A ratio above 10 means that the part differs more than good parts do."
        return [{"role": "user", "content": "\n".join([*known, evidence_text, question.text, TASK])}]


def _answer(question: Question, text: str, facts: list[TraceFact]) -> TraceAnswer:
    from sage_ad.evaluation.text.answer_parser import read
    from sage_ad.evaluation.text.stated_verdict import spoken_verdict

    verdict: bool | None = None
    if question.polarity is not None:
        state = spoken_verdict(read(text, question.text), question.polarity).state
        verdict = None if state is None else state == question.polarity
    return TraceAnswer(
        question=question.text, family=question.family, verdict=verdict, text=text or "(no answer)",
        facts=[fact.id for fact in facts],
    )  # fmt: skip


def _majority(questions: list[Question], answers: list[TraceAnswer]) -> Verdict:
    """The state that most answers give the part; "normal" where they are even."""
    from sage_ad.evaluation.questions import state_of

    said = [
        state_of(question.polarity, answer.verdict)
        for question, answer in zip(questions, answers, strict=True)
        if question.polarity is not None and answer.verdict is not None
    ]
    return "anomalous" if 2 * said.count("anomalous") > len(said) else "normal"
