"""Writers of ranked answers that use a model: one that samples a model's own answers, one that asks a language model.

What is sampled is ranked by what is known to be right (verdict, defect, place), not by the judge that scores it later.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sage_ad.alignment.data.build_preferences import PreferenceSettings, RuleWriter
from sage_ad.alignment.data.exchange import question_in_words
from sage_ad.alignment.data.labelled import LabelledPart
from sage_ad.evaluation.ranked import RankedAnswers
from sage_ad.vlm.backends.json_reply import json_object_with
from sage_ad.vlm.errors import BackendError

if TYPE_CHECKING:
    from sage_ad.evaluation.questions import GoldQuestion
    from sage_ad.vlm.backends.base import LanguageBackend

Sampler = Callable[[RankedAnswers, int, int], list[str]]
"""Answers of a model to the question of a line: line, how many, seed."""

_STATE_FIRST = re.compile(r"^\s*(normal|anomalous)\s*[.,:]?\s*", re.IGNORECASE)


def gold_rank(text: str, question: GoldQuestion) -> tuple[bool, bool, bool]:
    """What an answer has right: the verdict, the defect's name, the place. Higher tuples are better answers.

    On a good part the second and third are right when no defect is reported. What is not known counts as right for all.
    """
    from sage_ad.evaluation.text.answer_parser import read
    from sage_ad.evaluation.text.localisation import cells_of_words, places_in
    from sage_ad.evaluation.text.normalise import stems
    from sage_ad.evaluation.text.stated_verdict import spoken_verdict

    parsed = read(text, question.text)
    state = spoken_verdict(parsed, question.polarity).state
    right = state == ("anomalous" if question.anomalous else "normal")
    if not question.anomalous:
        clean = not parsed.asserted("bad")
        return right, clean, clean
    named = question.defect is None or set(stems(question.defect)) <= set(stems(text))
    pointed = frozenset(cell for place in places_in(text) for cell in place.cells)
    placed = question.place is None or (0 < len(pointed) <= 3 and bool(pointed & cells_of_words(question.place)))
    return right, named, placed


class SampledWriter:
    """Lists of a model's own answers, ranked by the labels; where they are too much alike, written ones fill up.

    Args:
        sample: draws answers.
        settings: numbers and seed.
        draws: answers drawn for each question.
    """

    rank_source: Literal["writer", "llm"] = "llm"

    def __init__(self, sample: Sampler, settings: PreferenceSettings | None = None, draws: int = 6) -> None:
        self.settings = settings or PreferenceSettings()
        self.sample, self.draws = sample, draws
        self._rules = RuleWriter(self.settings)

    def write(self, part: LabelledPart, question: GoldQuestion, line: RankedAnswers, rng: random.Random) -> list[str]:
        """The best and the worst answer that were found, and others between them; one of each rank, sampled first."""
        drawn = [plain_answer(text) for text in self.sample(line, self.draws, rng.randrange(2**31))]
        if self.settings.verdicts == "right":
            drawn = [text for text in drawn if gold_rank(text, question)[0]]
        by_rank: dict[tuple[bool, bool, bool], str] = {}
        for text in [*filter(None, drawn), *self._rules.write(part, question, line, rng)]:
            by_rank.setdefault(gold_rank(text, question), text)
        ranked = [by_rank[rank] for rank in sorted(by_rank, reverse=True)]
        wanted = min(self.settings.answers, len(ranked))
        if wanted < 2:
            return []
        places = dict.fromkeys(round(i * (len(ranked) - 1) / (wanted - 1)) for i in range(wanted))
        return [ranked[place] for place in places]


def plain_answer(text: str) -> str:
    """A sampled answer without the verdict token that SAGE models begin with, on one line."""
    return " ".join(_STATE_FIRST.sub("", text, count=1).split())


_ASK = """You write training data for an inspection model. Product: {product}. The part is {state}.{known}
Question: {question}
The right verdict is {verdict}. Write {count} answers, best first, each one or two sentences that begin with True. or False.:
{ranks}
Reply with one JSON object {{"answers": [{count} strings]}} and nothing else."""

_RANKS = {
    "best": "right verdict {verdict}, with defect, place and consequence where there are any",
    "vague": "right verdict {verdict}, but vague: no defect, no place, no reason",
    "wrong": "right verdict {verdict}, but a wrong defect or a wrong place (on a normal part: a made-up small flaw)",
    "opposite": "wrong verdict {opposite}, with a reason that fits it",
    "all wrong": "right verdict {verdict}, but a wrong defect and a wrong place (on a normal part: a reason that contradicts "
    "the verdict)",
}


class LanguageModelWriter:
    """Answers written by a language model that is given the right answer and the ranks.

    Args:
        backend: the model; a server that holds replies to a JSON schema does it best.
        settings: numbers and seed.

    Attributes:
        failed: questions for which no usable list came, in sentences; they are left out.
    """

    rank_source: Literal["writer", "llm"] = "llm"

    def __init__(self, backend: LanguageBackend, settings: PreferenceSettings | None = None) -> None:
        self.backend = backend
        self.settings = settings or PreferenceSettings()
        self.failed: list[str] = []

    def write(self, part: LabelledPart, question: GoldQuestion, line: RankedAnswers, rng: random.Random) -> list[str]:
        """Asks once and, if the reply is no list of different answers, once again.

        Raises:
            BackendError: the server failed (what was written so far is not lost to the caller).
        """
        worst = "all wrong" if self.settings.verdicts == "right" else "opposite"
        names = [*["best", "vague", "wrong"][: self.settings.answers - 1], worst]
        begins = [str(question.verdict != (name == "opposite")).lower() for name in names]
        messages = [{"role": "user", "content": self._task(part, question, names)}]
        for _ in range(2):
            done = self.backend.complete(
                messages,
                max_new_tokens=80 * len(names),
                temperature=0.8,
                seed=rng.randrange(2**31),
                json_schema=_schema(len(names)),
            )
            answers = read_answers(done.text, len(names))
            if answers and all(text.lower().startswith(word) for text, word in zip(answers, begins, strict=True)):
                return answers
        self.failed.append(
            f"line {line.id}: the writer gave no list of {len(names)} different answers with the verdicts asked for"
        )
        return []

    def _task(self, part: LabelledPart, question: GoldQuestion, names: Sequence[str]) -> str:
        facts = [
            f" {name.capitalize()}: {value}."
            for name, value in (("defect", part.defect), ("place", part.place))
            if value
        ]
        words: Mapping[str, Any] = {"verdict": question.verdict, "opposite": not question.verdict}
        return _ASK.format(
            product=part.product,
            state="anomalous" if part.anomalous else "normal",
            known="".join(facts),
            question=question.text,
            verdict=question.verdict,
            count=len(names),
            ranks="\n".join(f"{i}. {_RANKS[name].format(**words)}" for i, name in enumerate(names, start=1)),
        )


def _schema(count: int) -> dict[str, Any]:
    answers = {"type": "array", "items": {"type": "string"}, "minItems": count, "maxItems": count}
    return {
        "type": "object",
        "properties": {"answers": answers},
        "required": ["answers"],
        "additionalProperties": False,
    }


def read_answers(text: str, count: int) -> list[str]:
    """The answers in a reply, or an empty list where it holds no `count` different ones."""
    answers = (json_object_with(text, "answers") or {}).get("answers")
    if not isinstance(answers, list) or not all(isinstance(a, str) and a.strip() for a in answers):
        return []
    plain = list(dict.fromkeys(" ".join(a.split()) for a in answers))
    return plain if len(plain) == count else []


def backend_sampler(backend: LanguageBackend, temperature: float = 1.0, max_new_tokens: int = 48) -> Sampler:
    """Draws answers from any language model: facts and question in words."""

    def sample(line: RankedAnswers, count: int, seed: int) -> list[str]:
        asked = f"{question_in_words(line)} Begin with True. or False."
        messages = [{"role": "user", "content": asked}]
        try:
            return [
                backend.generate(messages, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed + i)
                for i in range(count)
            ]
        except BackendError as error:
            raise BackendError(f"No answers could be drawn for line {line.id}: {error}") from error

    return sample
