"""Ranked answers from labelled parts: what E-DPO learns from, written by rule, by a language model, or by the model itself.

The paper's ranks (method.md, section 3): right verdict with defect, place and consequence; right verdict, but vague; right
verdict with a wrong defect or place; wrong verdict. The deterministic writer needs no model and draws its wordings from
`preferences.yaml` by seed; `sage_ad.alignment.data.preference_writers` has the others.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from sage_ad.alignment.data.labelled import LabelledPart, Picture, seeded
from sage_ad.evaluation.inspection import Gold
from sage_ad.evaluation.ranked import RankedAnswers
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.files import whole_file

if TYPE_CHECKING:
    from sage_ad.alignment.data.questions import FactPool
    from sage_ad.evaluation.questions import GoldQuestion

WORDINGS_FILE = Path(__file__).with_name("preferences.yaml")
Wordings = Literal["train", "held_out"]
Verdicts = Literal["mixed", "right"]


@dataclass(frozen=True)
class PreferenceSettings:
    """How ranked answers are made.

    Attributes:
        answers: how many a question, 2 to 4: the best and the worst always, then the middle ones.
        seed: chooses questions, wordings, facts, wrong defects and places.
        wordings: "train", or "held_out" for measuring rewards on sentences that training never saw.
        facts: facts attached to a part, at most.
        verdicts: "mixed", the worst answer of a list has the wrong verdict, as in the paper; or "right", none has, and the
            worst answer is all wrong behind it. That is for SAGE models: their verdict is the evidence's, so two answers
            with different verdicts teach them nothing but to write badly after the one that they would never give.
    """

    answers: int = 4
    seed: int = 0
    wordings: Wordings = "train"
    facts: int = 6
    verdicts: Verdicts = "mixed"

    def __post_init__(self) -> None:
        if self.verdicts not in get_args(Verdicts):
            raise InputError(f"There are no lists with {self.verdicts!r} verdicts; use mixed or right.")
        if not 2 <= self.answers <= 4:
            raise InputError(f"A list of {self.answers} answers is not possible; ask for 2, 3 or 4.")


class PreferenceWriter(Protocol):
    """Writes the answers to one question about a labelled part, best first; fewer than two where it could not."""

    rank_source: Literal["writer", "llm"]

    def write(
        self, part: LabelledPart, question: GoldQuestion, line: RankedAnswers, rng: random.Random
    ) -> list[str]: ...


def build_preferences(
    parts: Iterable[LabelledPart],
    writer: PreferenceWriter | None = None,
    pool: FactPool | None = None,
    settings: PreferenceSettings | None = None,
    folder: Path | None = None,
) -> Iterator[RankedAnswers]:
    """Five lines of ranked answers for each part.

    Args:
        parts: from `sage_ad.alignment.data.labelled`.
        writer: of the answers; None takes the deterministic one.
        pool: facts for the prompts; None attaches none.
        settings: numbers and seed.
        folder: where drawn and pasted pictures are written, so that a line can name them; without it their parts are
            refused.

    Raises:
        InputError: a part has no file and there is no folder for its picture.
    """
    from sage_ad.alignment.data.questions import questions_about

    settings = settings or PreferenceSettings()
    writer = writer or RuleWriter(settings)
    for part in parts:
        rng = seeded(settings.seed, "preferences", settings.wordings, part.group)
        facts, consequence = ([], None) if pool is None else pool.choose(part, settings.facts, rng)
        image, reference = file_of(part.picture, folder), file_of(part.reference, folder)
        for number, question in enumerate(questions_about(part, consequence, settings.seed)):
            line = RankedAnswers(
                id=f"{part.group}#{number}",
                image=image,
                reference=reference,
                object=part.product,
                domain=part.domain if pool is None else pool.about(part.product, part.domain)[0],
                group=part.group,
                pair_type=question.family,
                question=question.text,
                gold=Gold(**question.gold().model_dump()),
                facts=list(facts),
                answers=["", ""],
                rank_source=writer.rank_source,
            )
            answers = writer.write(part, question, line, rng)
            if len(answers) >= 2:
                yield line.model_copy(update={"answers": answers})


def file_of(picture: Picture | None, folder: Path | None) -> str | None:
    """The file of a picture; a drawn or pasted one is written into `folder` (once)."""
    if picture is None:
        return None
    if picture.kind == "file":
        return str(Path(picture.path).resolve())
    if folder is None:
        raise InputError("Drawn and pasted parts have no files of their own; name a folder with --out to keep them in.")
    file = folder / "pictures" / f"{picture.key}.png"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as stream:
            picture.load().save(stream, format="PNG")
    return str(file.resolve())


class RuleWriter:
    """The deterministic writer: sentences of `preferences.yaml`, filled with what is known and with what is wrong.

    Args:
        settings: numbers, wordings and seed.
    """

    rank_source: Literal["writer", "llm"] = "writer"

    def __init__(self, settings: PreferenceSettings | None = None) -> None:
        self.settings = settings or PreferenceSettings()

    def write(self, part: LabelledPart, question: GoldQuestion, line: RankedAnswers, rng: random.Random) -> list[str]:
        """Up to four answers, best first, no two alike."""
        verdict = bool(question.verdict)
        filled = _Sentences(part, question, self.settings, rng)
        ranked = [f"{verdict}. {filled.right()}"]
        if self.settings.answers > 2:
            ranked.append(f"{verdict}. {filled.vague()}")
        if self.settings.answers > 3:
            ranked.append(f"{verdict}. {filled.wrong()}")
        if self.settings.verdicts == "right":
            ranked += [f"{verdict}. {reason}" for reason in filled.all_wrong()]
        else:
            ranked.append(f"{not verdict}. {filled.opposite()}")
        return list(dict.fromkeys(ranked))


class _Sentences:
    """The reasons that go into one list of answers."""

    def __init__(
        self, part: LabelledPart, question: GoldQuestion, settings: PreferenceSettings, rng: random.Random
    ) -> None:
        self.part, self.family, self.rng = part, question.family, rng
        self.consequence = _known_consequence(question.reference_answer)
        self.state = "anomalous" if part.anomalous else "normal"
        self.data = {name: preference_wordings()[name][settings.wordings] for name in ("best", "vague", "made_up")}
        self.template = rng.choice(self.data["best"][self.family][self.state])
        self.same_words = settings.verdicts == "right"

    def right(self) -> str:
        return self._fill(self.template, self.part.defect, self.part.place)

    def vague(self) -> str:
        return self._fill(self.rng.choice(self.data["vague"][self.state]), None, None)

    def wrong(self) -> str:
        """Right verdict; a wrong defect or place, or, on a good part, a flaw that is not there."""
        if not self.part.anomalous:
            return self._fill(
                self.rng.choice(self.data["made_up"][self.family]), self._other_defect(), self._other_place()
            )
        template = self._next_template()
        faults = [name for name, known in (("defect", self.part.defect), ("place", self.part.place)) if known]
        if not faults:
            return self._fill(template, self._other_defect(), self._other_place())
        # Where a worse answer follows, one fault of two is left to it.
        both = [] if self.same_words and len(faults) > 1 else [faults]
        chosen = self.rng.choice([[fault] for fault in faults] + both)
        defect = self._other_defect() if "defect" in chosen else self.part.defect
        place = self._other_place() if "place" in chosen else self.part.place
        return self._fill(template, defect, place)

    def all_wrong(self) -> list[str]:
        """Wrong in defect and place behind the right verdict; on a good part, a reason that goes with the wrong one.

        Nothing where neither defect nor place is known: `wrong` has then said all that can be wrong.
        """
        if not self.part.anomalous:
            return [self.opposite()]
        if not (self.part.defect or self.part.place):
            return []
        return [self._fill(self._next_template(), self._other_defect(), self._other_place())]

    def _next_template(self) -> str:
        """Where all verdicts are right, answers of a list differ in what they say and not in their words."""
        return self.template if self.same_words else self.rng.choice(self.data["best"][self.family][self.state])

    def opposite(self) -> str:
        """The reason that goes with the wrong verdict."""
        state = "normal" if self.part.anomalous else "anomalous"
        template = self.rng.choice(self.data["best"][self.family][state])
        return self._fill(template, self._other_defect(), self._other_place())

    def _fill(self, template: str, defect: str | None, place: str | None) -> str:
        from sage_ad.evaluation.questions import filled

        return filled(template, self.part.product, defect=defect, place=place, consequence=self.consequence)

    def _other_defect(self) -> str:
        own = set((self.part.defect or "").lower().split())
        return self.rng.choice([d for d in preference_wordings()["other_defects"] if not own & set(d.split())])

    def _other_place(self) -> str:
        """A place that does not touch the right one: at least two cells away in a row or a column."""
        from sage_ad.vlm.places import PLACES, cell_of_place

        if self.part.place is None:
            return self.rng.choice(PLACES)
        row, column = cell_of_place(self.part.place)
        far = [p for p in PLACES if max(abs(cell_of_place(p)[0] - row), abs(cell_of_place(p)[1] - column)) > 1]
        # Every other cell touches the centre.
        return self.rng.choice(far or [p for p in PLACES if p != self.part.place])


def _known_consequence(reference_answer: str) -> str | None:
    """The consequence that a diagnosis's right answer states, to be said again in other words."""
    head, mark, rest = reference_answer.partition("; ")
    consequence, so, _ = rest.partition(", so ")
    return consequence if mark and so and head else None


@cache
def preference_wordings() -> dict[str, Any]:
    """The content of `preferences.yaml`; treat it as read-only."""
    import yaml

    return yaml.safe_load(WORDINGS_FILE.read_text(encoding="utf-8"))
