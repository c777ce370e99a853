"""Questions about a part: the five standard ones, reading what users type, and building questions from labels.

All wordings are data (`questions.yaml`). A question has a *family* (what it is after) and a *polarity* (what "True"
says of the part), so that "is it free of defects?" and "is it defective?" are never mixed up.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.evaluation.inspection import FAMILIES, Family, Verdict
from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    from sage_ad.evaluation.inspection import Gold

Polarity = Verdict
"""The state of the part that a "True" asserts: "normal" (True is good news) or "anomalous" (True is bad news)."""

QUESTIONS_FILE = Path(__file__).with_name("questions.yaml")


@dataclass(frozen=True)
class Question:
    """A question with its family and polarity (None where "yes" and "no" are no answers)."""

    text: str
    family: Family
    polarity: Polarity | None


@dataclass(frozen=True)
class GoldQuestion(Question):
    """A question about a labelled image, with the answer that the labels give.

    Attributes:
        verdict: True or False for the question as asked; None if it is no yes/no question.
        anomalous: the state of the part.
        defect: the defect in words; None for a good part, and where the label names no kind ("defective").
        place: one of `sage_ad.vlm.places.PLACES` from mask or boxes; None where they are missing.
        reference_answer: a right answer in words.
        group: the image that the five questions share (Acc-G is per group).
        options: letter and text of each choice, for multiple-choice sets (MMAD).
        letter: the right choice.
        subtask: the set's own name of what is asked (MMAD's seven subtasks).
        ranked: the set's own answers, best first (AD-PL).
    """

    verdict: bool | None = None
    anomalous: bool = False
    defect: str | None = None
    place: str | None = None
    reference_answer: str = ""
    group: str = ""
    options: tuple[tuple[str, str], ...] = ()
    letter: str | None = None
    subtask: str | None = None
    ranked: tuple[str, ...] = ()

    def gold(self) -> Gold:
        """The same as the `Gold` of `sage_ad.evaluation.judge.loading`."""
        from sage_ad.evaluation.inspection import Gold

        return Gold(
            verdict=self.verdict,
            anomalous=self.anomalous,
            defect=self.defect,
            place=self.place,
            reference_answer=self.reference_answer,
        )


@cache
def wordings() -> dict[str, Any]:
    """The content of `questions.yaml`; treat it as read-only."""
    import yaml

    return yaml.safe_load(QUESTIONS_FILE.read_text(encoding="utf-8"))


@cache
def _standard() -> tuple[Question, ...]:
    return tuple(Question(row["text"], row["family"], row["polarity"]) for row in wordings()["standard"])


def standard_questions() -> list[Question]:
    """The five questions that are asked when a request brings none: three families, both polarities."""
    return list(_standard())


def read_question(text: str) -> Question:
    """Reads a question of any wording: `Question(text, family_of(text), polarity_of(text))`.

    Raises:
        InputError: the text is empty.
    """
    if not text.strip():
        raise InputError("The question is empty; give a sentence, or leave it out.")
    return Question(text, family_of(text), polarity_of(text))


def verdict_of(polarity: Polarity, state: Verdict) -> bool:
    """The right answer, True or False, to a question of this polarity about a part in this state."""
    return polarity == state


def state_of(polarity: Polarity, answer: bool) -> Verdict:
    """The state of the part that this answer to a question of this polarity asserts (the inverse of `verdict_of`)."""
    if answer:
        return polarity
    return "anomalous" if polarity == "normal" else "normal"


# --- reading a question of free wording -----------------------------------------------------------------------------


@cache
def _pattern(name: str) -> re.Pattern[str]:
    """One list of the section `reading` as a pattern of whole words, the longest wording first."""
    parts = sorted(wordings()["reading"][name], key=len, reverse=True)
    return re.compile(rf"(?<![\w'-])(?:{'|'.join(parts)})(?![\w'])")


@cache
def _known() -> dict[str, Question]:
    """Our own wordings, so that they are read without guessing ({product} removed)."""
    data = wordings()
    known = {_key(question.text): question for question in _standard()}
    for family, polarities in data["templates"].items():
        for polarity, texts in polarities.items():
            known.update({_key(text): Question(text, family, polarity) for text in texts})
    return known


def _key(text: str) -> str:
    return " ".join(re.findall(r"[\w']+", text.lower().replace("{product}", "")))


def is_standard(text: str, product: str | None = None) -> bool:
    """Whether a question is one of the standard ones, or built from the templates that labelled sets are asked with."""
    bare = text if product is None else re.sub(re.escape(product), "{product}", text, flags=re.IGNORECASE)
    return _key(text) in _known() or _key(bare) in _known()


def _plain(text: str) -> str:
    return " ".join(text.lower().replace("’", "'").split())


def _clauses(text: str) -> list[str]:
    """Sentences and "and if so" parts of a question, in order."""
    return [
        part
        for part in re.split(r"[.?!;:]|,? (?:and )?if (?:so|not|there|yes|no)\b|\botherwise\b", text)
        if part.strip()
    ]


def family_of(text: str) -> Family:
    """The family of a question of any wording; a question about the state as a whole is a standard comparison."""
    known = _known().get(_key(text))
    if known:
        return known.family
    plain = _plain(text)
    if _pattern("diagnosis").search(plain):
        return "defect diagnosis"
    if _pattern("localising").search(plain):
        return "defect identification"
    if _pattern("comparison").search(plain):
        return "standard comparison"
    return "defect identification" if _pattern("identifying").search(plain) else "standard comparison"


def polarity_of(text: str) -> Polarity | None:
    """What a "True" to this question says of the part: "normal" (good news), "anomalous" (bad news).

    Returns:
        None when "yes" and "no" are no answers to it ("Which defect is it?"), or when nothing tells.
    """
    known = _known().get(_key(text))
    if known:
        return known.polarity
    clauses = _clauses(_plain(text))
    if not clauses or _is_open(clauses[0]):
        return None
    for clause in clauses:
        sign = _sign(_from_verb(clause))
        if sign:
            return "normal" if sign > 0 else "anomalous"
    return None


def _is_open(clause: str) -> bool:
    """Whether a clause opens with "which", "where", ... (with or without a preposition before it)."""
    return bool(re.match(rf"\W*(?:(?:in|at|on|of|to|please|and) )*{_pattern('open_question').pattern}", clause))


def _from_verb(clause: str) -> str:
    """The clause after its first auxiliary: what follows "is" decides "compared with a good part, is it ..."."""
    found = _pattern("auxiliary").search(clause)
    # "Isn't it defective?" asks the same as "Is it defective?": the negation of the opening verb is rhetoric.
    return clause[found.end() :] if found else clause


def _sign(clause: str) -> int:
    """+1 if the clause asserts good news, -1 for bad news, 0 if nothing tells; the first deciding cue wins."""
    cues = sorted(
        [(m.start(), -m.end(), 1) for m in _pattern("good_news").finditer(clause)]
        + [(m.start(), -m.end(), -1) for m in _pattern("bad_news").finditer(clause)]
    )
    fallback, covered = 0, 0
    for start, negative_end, sign in cues:
        if start < covered:
            continue
        before = clause[covered:start]
        covered = -negative_end
        if len(_pattern("negation").findall(before)) % 2:
            sign = -sign
        words = re.findall(r"[\w']+", before)
        describes = bool(words) and bool(_pattern("description").fullmatch(words[-1])) and not _is_predicate(before)
        if not describes:
            return sign
        fallback = fallback or sign
    return fallback


def _is_predicate(before: str) -> bool:
    """Whether an article before a cue opens what is said of the part ("is this a good part?"), not a description."""
    return bool(
        re.search(
            r"(?:^|\b)(?:this|it|that|there|show|shows|have|has|see|look|looks|as|be|like)(?: \w+)? an?\s*$", before
        )
    )


# --- building questions from labels ---------------------------------------------------------------------------------


def defect_words(name: str | None) -> str | None:
    """A defect's folder name in words; None for good parts and for names that name no kind ("defective")."""
    if not name or name.lower() in {"good", "ok", "normal"}:
        return None
    table = wordings()["defect_words"]
    key = name.strip().lower().replace(" ", "_")
    if key in table:
        return table[key]
    words = re.sub(r"[_\s]+", " ", name).strip().lower()
    return None if words.isdigit() else words


def product_words(category: str | None) -> str:
    """A category's folder name in words, without running numbers: "fabric_03" is "fabric", "" is "part"."""
    table = wordings()["product_words"]
    name = (category or "").strip().lower()
    bare = re.sub(r"[_\s]*\d+$", "", name)
    for key in (name, bare):
        if key in table:
            return table[key]
    return re.sub(r"[_\s]+", " ", bare).strip() or table[""]


def build_questions(
    *,
    product: str,
    anomalous: bool,
    defect: str | None = None,
    place: str | None = None,
    consequence: str | None = None,
    group: str = "",
    seed: int = 0,
) -> list[GoldQuestion]:
    """Five questions about one labelled part, with gold answers: three families, both polarities, varied wording.

    Args:
        product: the product in words.
        anomalous: the state of the part.
        defect: the defect in words (`defect_words`), None if unknown.
        place: one of `sage_ad.vlm.places.PLACES`, None if unknown.
        consequence: a clause such as "current is lost behind the crack"; a careful general one stands in when unknown.
        group: name of the image; the wording is drawn from it and `seed`, so that it never depends on the order.
        seed: another seed draws other wordings.
    """
    # hash() differs between processes, a digest does not.
    generator = random.Random(hashlib.sha256(f"{seed}\n{group}".encode()).digest())
    state: Verdict = "anomalous" if anomalous else "normal"
    built = []
    for family, polarity in _plan(generator):
        text = generator.choice(wordings()["templates"][family][polarity]).format(product=product)
        verdict = verdict_of(polarity, state)
        answer = _reference_answer(generator, family, state, product, defect, place, consequence)
        built.append(
            GoldQuestion(
                text=text,
                family=family,
                polarity=polarity,
                verdict=verdict,
                anomalous=anomalous,
                defect=defect if anomalous else None,
                place=place if anomalous else None,
                reference_answer=f"{verdict}. {answer}",
                group=group,
            )
        )
    return built


def _plan(generator: random.Random) -> Iterator[tuple[Family, Polarity]]:
    """Family and polarity of each question, in an order that tells nothing."""
    plan: list[tuple[Family, Polarity]] = []
    polarities: tuple[Polarity, Polarity] = ("normal", "anomalous")
    for family in FAMILIES:
        count = wordings()["per_image"][family]
        first = generator.randrange(2)
        plan += [(family, polarities[(first + i) % 2]) for i in range(count)]
    generator.shuffle(plan)
    yield from plan


def _reference_answer(
    generator: random.Random,
    family: Family,
    state: Verdict,
    product: str,
    defect: str | None,
    place: str | None,
    consequence: str | None,
) -> str:
    template = generator.choice(wordings()["answers"][family][state])
    return filled(template, product, defect=defect, place=place, consequence=consequence)


def filled(
    template: str, product: str, *, defect: str | None = None, place: str | None = None, consequence: str | None = None
) -> str:
    """A wording of an answer with what is known in its fields, and careful general words for what is not."""
    data = wordings()
    return template.format(
        product=product,
        defect=with_article(defect) if defect else data["unnamed_defect"],
        place=data["place_phrase"].format(place=place) if place else "",
        consequence=consequence or data["unknown_consequence"],
    )


def with_article(defect: str) -> str:
    """A defect's name as it stands in a sentence: "a crack", "an open circuit", "scratches", "rust"."""
    head = re.split(r" (?:on|in|at|of|\()", f"{defect} ")[0].strip()
    plural = head.endswith("s") and not head.endswith("ss")
    if (
        plural
        or head.endswith(tuple(wordings()["uncounted"]))
        or re.match(r"(?:an?|the|some|several|two|three|four|no) ", defect)
    ):
        return defect
    return f"an {defect}" if defect[0] in "aeiou" else f"a {defect}"
