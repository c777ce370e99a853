"""The plain inspector that every model has to beat: the evidence decides against its threshold, a template words it.

Registered as `evidence-template`. It knows no language, no facts and no kind of defect; it names the place of the
strongest region and follows the polarity of the question.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.evaluation.inspection import InspectionRequest, InspectionTrace, TraceAnswer, TraceStep, about, measured
from sage_ad.evaluation.questions import Question, filled, read_question, standard_questions, verdict_of, wordings

if TYPE_CHECKING:
    from sage_ad.vlm.evidence.extractor import Evidence, EvidenceExtractor, MemoryBank
    from sage_ad.vlm.pictures.brightness import Brightness

NAME = "evidence-template"


class EvidenceTemplateInspector:
    """Evidence threshold plus template, as an `Inspector`.

    Args:
        device: "auto", "cpu" or "cuda".
        encoder: name of the visual encoder; None takes the default.
        seed: accepted for symmetry with other inspectors; nothing here is random.
        extractor: a ready extractor, shared with other parts of a program.

    Raises:
        InputError: no such encoder or device; an image of a request cannot be read.
    """

    name = NAME

    def __init__(
        self,
        device: str = "auto",
        encoder: str | None = None,
        seed: int = 0,
        extractor: EvidenceExtractor | None = None,
    ) -> None:
        del seed
        self._device = device
        self._encoder = encoder
        self._extractor = extractor
        self._bank: tuple[tuple[Any, ...], MemoryBank] | None = None

    def inspect(self, request: InspectionRequest) -> InspectionTrace:
        """Inspects one part."""
        from sage_ad.vlm.images import in_range, load_image, notes_of, shared_brightness

        start = time.perf_counter()
        image, references = load_image(request.image), _files(request.references)
        brightness = shared_brightness([request.image, *references])
        evidence = self._evidence(in_range(image, request.image, brightness), references, brightness)
        summary = evidence.threshold_reason
        if brightness is not None:
            summary += f" {brightness.sentence}"
        seen = time.perf_counter()
        questions = [read_question(text) for text in request.questions] or standard_questions()
        answers = [_answer(question, evidence, request.product) for question in questions]
        end = time.perf_counter()
        return InspectionTrace(
            **about(request),
            **measured(evidence),
            answers=answers,
            steps=[
                TraceStep(name="perceive", seconds=seen - start, summary=summary),
                TraceStep(name="answer", seconds=end - seen, summary=f"{len(answers)} answers from templates."),
            ],
            warnings=[*notes_of(image), *evidence.warnings],
            model=NAME,
            seconds=end - start,
        )

    def inspect_many(self, requests: Iterable[InspectionRequest]) -> Iterator[InspectionTrace]:
        """Inspects parts in order; a bank of references is made once for neighbours that share it."""
        for request in requests:
            yield self.inspect(request)

    def _evidence(self, image: Any, references: list[Path], brightness: Brightness | None) -> Evidence:
        from sage_ad.vlm.evidence.extractor import EvidenceExtractor, EvidenceSettings
        from sage_ad.vlm.images import load_image

        if self._extractor is None:
            chosen: dict[str, Any] = {"encoder": self._encoder} if self._encoder else {}
            self._extractor = EvidenceExtractor(EvidenceSettings(device=self._device, **chosen))
        if not references:
            return self._extractor.extract(image)
        key = (brightness, *references)
        if self._bank is None or self._bank[0] != key:
            pictures = [load_image(path, brightness=brightness) for path in references]
            self._bank = (key, self._extractor.prepare(pictures))
        return self._extractor.extract(image, self._bank[1])


def _files(references: Sequence[Path]) -> list[Path]:
    """Files of the references; a folder stands for the pictures in it."""
    from sage_ad.vlm.images import list_images, pages_of

    return [file for path in references for file in (list_images(path) if path.is_dir() else pages_of(path))]


def _answer(question: Question, evidence: Evidence, product: str | None) -> TraceAnswer:
    """The first template of the question's family for the measured state; the verdict follows the polarity."""
    data = wordings()
    verdict = verdict_of(question.polarity, evidence.verdict) if question.polarity else None
    place = evidence.regions[0].place if evidence.regions else None
    template = data["answers"][question.family][evidence.verdict][0]
    text = filled(template, product or data["product_words"][""], place=place)
    return TraceAnswer(
        question=question.text,
        family=question.family,
        verdict=verdict,
        text=text if verdict is None else f"{verdict}. {text}",
    )
