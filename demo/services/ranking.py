"""Answers for an expert to rank: four real ways of answering one question, and the lines that keep the expert's order.

The answers differ because they were made differently: with everything, without facts, without the good part, by the
plain template, and in the model's own unchecked words. Who made which is not shown, so that the order is the expert's.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.demo.services.engine import Engine
from sage_ad.demo.services.fair_queue import Event
from sage_ad.demo.services.run_store import Run
from sage_ad.evaluation.inspection import InspectionRequest, TraceAnswer
from sage_ad.evaluation.ranked import RankedAnswers
from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    from sage_ad.evaluation.inspection import Gold

ANSWERS = 4
_LINES = threading.Lock()
SAID = {"True": "Yes.", "False": "No."}
"""How people say what a model was trained to begin an answer with."""


def candidate_answers(engine: Engine, run: Run, answer: TraceAnswer) -> Iterator[Event]:
    """Answers one question of a kept inspection in different ways until there are four different texts.

    Yields:
        {"event": "way", "way"} before each, then {"event": "answers", "answers": list of texts, shuffled}.

    Raises:
        InputError: the pictures of the run are gone.
    """
    if run.original is None:
        raise InputError("The picture of this run is not there any more; inspect the part again.")
    full = InspectionRequest(
        image=run.original,
        references=[run.original_reference] if run.original_reference else [],
        questions=[answer.question],
        domain=run.trace.domain,
        product=run.trace.product,
    )
    texts = [answer.text] if answer.text else []
    for way, make in ways(engine, full, run, answer):
        if len(texts) == ANSWERS:
            break
        yield {"event": "way", "way": way}
        text = re.sub(r"^(True|False)\.", lambda said: SAID[said[1]], " ".join(make().split()))
        if text and text not in texts:
            texts.append(text)
    random.Random(run.id + answer.question).shuffle(texts)
    yield {"event": "answers", "answers": texts}


def rankable(run: Run) -> list[TraceAnswer]:
    """The answers of an inspection; where no question was asked, the five standard ones, whose text is still empty."""
    from sage_ad.evaluation.questions import standard_questions

    return run.trace.answers or [
        TraceAnswer(question=question.text, family=question.family, verdict=None, text="")
        for question in standard_questions()
    ]


def ways(engine: Engine, full: InspectionRequest, run: Run, answer: TraceAnswer) -> Iterator[tuple[str, Any]]:
    """(what is done, how) of each further way to answer."""
    from sage_ad.evaluation.template_inspector import EvidenceTemplateInspector

    inspector = engine.inspector()

    def first_answer(request: InspectionRequest) -> str:
        return inspector.inspect(request).answers[0].text

    if not answer.text:
        yield "as inspected", lambda: first_answer(full)
    yield "without facts", lambda: first_answer(full.model_copy(update={"settings": {"facts": "none"}}))
    if full.references:
        yield "without the good part", lambda: first_answer(full.model_copy(update={"references": []}))
    template = EvidenceTemplateInspector(extractor=inspector.resources.extractor)
    yield "by the plain template", lambda: template.inspect(full).answers[0].text
    messages = own_words_prompt(run, answer)
    for seed in range(4):
        yield (
            "in the model's own words",
            lambda seed=seed: inspector.resources.backend.generate(
                messages, max_new_tokens=64, temperature=0.8, seed=engine.settings.seed + seed
            ),
        )


def own_words_prompt(run: Run, answer: TraceAnswer) -> list[dict[str, Any]]:
    """The chat that asks the model to answer freely from what was measured."""
    trace = run.trace
    places = ", ".join(dict.fromkeys(region.place for region in trace.regions)) or "nowhere"
    measured = f"A {trace.product or 'part'} was inspected and found {trace.verdict}. What stands out: {places}."
    return [{"role": "user", "content": f"{measured}\nAnswer in one or two sentences: {answer.question}"}]


def ranked_line(
    run: Run, answer: TraceAnswer, answers: list[str], gold: Gold | None, image: str | None, reference: str | None
) -> RankedAnswers:
    """The line that `sage-eval judge` and `sage-train` read (contracts.md).

    Raises:
        InputError: fewer than two different answers, or an empty one.
    """
    kept = [" ".join(text.split()) for text in answers]
    if len(kept) < 2 or not all(kept):
        raise InputError(f"There are {sum(map(bool, kept))} answers to rank; give at least two, none empty.")
    if len(set(kept)) < len(kept):
        raise InputError("Two of the answers are the same; change one of them.")
    number = [item.question for item in rankable(run)].index(answer.question) + 1
    return RankedAnswers(
        id=f"{run.id}-{number}",
        image=image,
        reference=reference,
        object=run.trace.product,
        domain=run.trace.domain,
        group=run.id,
        pair_type=answer.family,
        question=answer.question,
        gold=gold,
        facts=[fact.text for fact in run.trace.facts if fact.status != "rejected"],
        answers=kept,
        rank_source="expert",
    )


def gold_of(answer: TraceAnswer, state: str, defect: str, place: str, best: str) -> Gold | None:
    """What the expert said is right; None when nothing was said."""
    from sage_ad.evaluation.inspection import Gold
    from sage_ad.evaluation.questions import read_question, verdict_of

    if state not in ("normal", "anomalous") and not best:
        return None
    anomalous = {"normal": False, "anomalous": True}.get(state)
    polarity = read_question(answer.question).polarity
    known = polarity is not None and anomalous is not None
    return Gold(
        verdict=verdict_of(polarity, "anomalous" if anomalous else "normal") if known and polarity else None,
        anomalous=anomalous,
        defect=defect or None if anomalous else None,
        place=place or None if anomalous else None,
        reference_answer=best or None,
    )


class RankingStore:
    """Ranked answers of each visitor: ranked.jsonl with its pictures beside it, as the training commands take it.

    Args:
        root: folder of all rankings.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, owner: str) -> Path:
        """Where this visitor's lines and pictures lie."""
        return self.root / owner

    def pictures(self, owner: str, run: Run) -> tuple[str | None, str | None]:
        """Copies test part and good part beside the lines; returns their paths relative to the file of lines."""
        folder = self.folder(owner) / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        paths: list[str | None] = []
        for role, file in (("test", run.original), ("good", run.original_reference)):
            if file is None:
                paths.append(None)
                continue
            name = f"{run.id}-{role}{file.suffix}"
            shutil.copyfile(file, folder / name)
            paths.append(f"pictures/{name}")
        return paths[0], paths[1]

    def save(self, owner: str, line: RankedAnswers) -> int:
        """Adds a line; a line of the same question of the same run is replaced. Returns how many there are."""
        from sage_ad.evaluation.ranked import write_ranked

        with _LINES:
            lines = [kept for kept in self.lines(owner) if kept.id != line.id]
            return write_ranked(self.folder(owner) / "ranked.jsonl", [*lines, line])

    def lines(self, owner: str) -> list[RankedAnswers]:
        """This visitor's lines."""
        from sage_ad.evaluation.ranked import iterate_ranked

        path = self.folder(owner) / "ranked.jsonl"
        return list(iterate_ranked(path)) if path.is_file() else []

    def bundle(self, owner: str, target: Path) -> Path:
        """Writes lines and pictures into one zip file.

        Raises:
            InputError: nothing was ranked yet.
        """
        lines = self.lines(owner)
        if not lines:
            raise InputError("Nothing is ranked yet; save a ranking first.")
        folder = self.folder(owner)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as bundle:
            text = "".join(json.dumps(line.model_dump(mode="json"), ensure_ascii=False) + "\n" for line in lines)
            bundle.writestr("ranked.jsonl", text)
            for name in dict.fromkeys(name for line in lines for name in (line.image, line.reference) if name):
                if (folder / name).is_file():
                    bundle.write(folder / name, name)
        return target
