"""Whether two sentences say opposite things of the same subject, by words and numbers alone, no language model.

Two sentences contradict each other when they are about the same thing (the same content words remain) and differ by an
odd number of flips: a negation on one side, a pair of opposites ("dark" / "bright"), or numbers of one dimension that
exclude each other. Two flips cancel: "long cracks are rejected" and "short cracks are accepted" agree. What the check
cannot see: opposites that need knowledge of the world ("caused by hail" / "caused by heat"), and other languages than
English. The words are data: `data/antonyms.yaml`.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from sage_ad.knowledge.text.quantities import Quantity, conflict, find_quantities
from sage_ad.knowledge.text.resources import resource
from sage_ad.knowledge.text.stemming import stem

_TOKEN = re.compile(r"[a-z]+(?:-[a-z]+)*|[,;:.()]")
_LETTERED = re.compile(r"\b(class|zone|grade|type|level|category|side|area) ([a-z])\b(?! [a-z])")
"""A letter that names one of several: "class A" is no "class B", though "a" is no content word."""
_NEGATION_REACH = 6
_PREFIXES = ("un", "in", "im", "ir", "il", "non", "non-", "dis")


@dataclass(frozen=True)
class Word:
    """A content word: its stem, the number of the negator that reaches it (None when none does), and how it is written."""

    stem: str
    negator: int | None
    text: str


@dataclass(frozen=True)
class Relation:
    """Two things in an order that matters: cause and effect, earlier and later, more and less ("brighter than").

    Attributes:
        kind: "cause", "order" or "comparison".
        first: stems of the cause, of what comes earlier, or of what stands before "than".
        second: stems of the other one.
        text: how the sentence states it.
    """

    kind: str
    first: frozenset[str]
    second: frozenset[str]
    text: str

    def swapped(self, other: Relation) -> bool:
        """Whether the other relation has the two things the other way round."""
        one, two = self.first - self.second, self.second - self.first
        our, their = other.first - other.second, other.second - other.first
        crossed, stayed = len(one & their) + len(two & our), len(one & our) + len(two & their)
        return self.kind == other.kind and bool(one & their and two & our) and stayed < crossed


@dataclass(frozen=True)
class Profile:
    """What of a sentence counts for the comparison.

    Attributes:
        words: content words in order, without those that belong to a number ("longer than 5 mm").
        quantities: numbers with their units.
        subject: stems of the first three content words, which tell what the sentence is about.
        relation: what causes what, precedes what, or exceeds what, where the sentence says so.
    """

    words: tuple[Word, ...]
    quantities: tuple[Quantity, ...]
    subject: tuple[str, ...]
    relation: Relation | None = None

    @functools.cached_property
    def stems(self) -> frozenset[str]:
        """Stems of all content words."""
        return frozenset(word.stem for word in self.words)


@dataclass(frozen=True)
class Flip:
    """One way in which two sentences are opposed, and the words that show it.

    Attributes:
        how: "negation", "opposites", "numbers" or "direction".
        left: what of the first sentence is opposed: the stem of a word, else words as they are written.
        right: the same of the second one.
        written: both as they are written.
    """

    how: str
    left: str
    right: str
    written: tuple[str, str]

    def __str__(self) -> str:
        if self.how == "negation":
            return f"one denies {self.written[0]!r}"
        return f"{self.written[0]!r} against {self.written[1]!r}"


def contradiction(first: str, second: str) -> str | None:
    """Why two sentences cannot both hold, in a few words; None when no contradiction is found."""
    left, right = profile(first), profile(second)
    flips = find_flips(left, right)
    if not flips or not same_subject(left, right, flips):
        return None
    if len(flips) % 2 == 0 and not (flips := _clause_flips(first, second)):
        return None
    return "; ".join(str(flip) for flip in flips)


_CLAUSE = re.compile(r"\s*(?:;|,?\s+and\s+|,?\s+but\s+|,?\s+so\s+)\s*")


def _clause_flips(first: str, second: str) -> list[Flip]:
    """Two flips that stand in two clauses ("is dark and must stay" / "is bright and must not stay") do not cancel."""
    ours, theirs = _CLAUSE.split(first), _CLAUSE.split(second)
    if len(ours) < 2 or len(ours) != len(theirs):
        return []
    found = [find_flips(profile(a), profile(b)) for a, b in zip(ours, theirs, strict=True)]
    return [flip for flips in found if len(flips) % 2 for flip in flips]


def find_flips(left: Profile, right: Profile) -> list[Flip]:
    """All flips between two sentences; an even number of them cancels."""
    flips = list(_opposites(left, right))
    used = {flip.left for flip in flips} | {flip.right for flip in flips}
    denials = _negations(left, right, used)
    # "Must have no pores" and "is rejected for pores" agree: the verdict takes the denial back.
    verdicts = len((left.stems & _condemning()) - used) + len((right.stems & _condemning()) - used)
    flips.extend(denials if verdicts % 2 == 0 or (left.stems & right.stems & _condemning()) else denials[1:])
    flips.extend(_numbers(left, right))
    if left.relation and right.relation and left.relation.swapped(right.relation):
        stated = (left.relation.text, right.relation.text)
        flips.append(Flip("direction", *stated, stated))
    return flips


def _opposites(left: Profile, right: Profile) -> list[Flip]:
    """Pairs of opposed words, each used once; a negation on one side of a pair ("not bright" / "dark") undoes it."""
    flips, taken = [], set()
    ours = {word.stem: word for word in left.words if word.stem not in right.stems}
    theirs = {word.stem: word for word in right.words if word.stem not in left.stems}
    for a in ours.values():
        for b in theirs.values():
            if b.stem in taken or not are_opposites(a.stem, b.stem):
                continue
            taken.add(b.stem)
            if a.negator is None and b.negator is None:
                flips.append(Flip("opposites", a.stem, b.stem, (a.text, b.text)))
            break
    return flips


def _negations(left: Profile, right: Profile, used: set[str]) -> list[Flip]:
    """One flip for each negator that denies a word which the other sentence asserts."""
    flips: dict[tuple[int, int | None], Flip] = {}
    for side, (one, other) in enumerate(((left, right), (right, left))):
        # What a sentence both names and denies ("a screw ... cannot be screwed") is its subject, not what it denies.
        named = {word.stem for word in one.words if word.negator is None}
        asserted = {word.stem for word in other.words if word.negator is None} - named
        for word in one.words:
            if word.negator is not None and word.stem in asserted - used:
                flips.setdefault((side, word.negator), Flip("negation", word.stem, word.stem, (word.text, word.text)))
    # "no cracks and no chips" against "cracks and chips" is one denial, not two that cancel.
    sides = {side for side, _ in flips}
    return [next(flip for (side, _), flip in flips.items() if side == wanted) for wanted in sorted(sides)]


def _numbers(left: Profile, right: Profile) -> list[Flip]:
    clashes = [(a, b) for a in left.quantities for b in right.quantities if conflict(a, b)]
    same = any(a.same_as(b) for a in left.quantities for b in right.quantities)
    if not clashes or (same and len(left.quantities) + len(right.quantities) > 2):
        return []
    a, b = clashes[0]
    return [Flip("numbers", a.text, b.text, (a.text, b.text))]


def same_subject(left: Profile, right: Profile, flips: list[Flip]) -> bool:
    """Whether two sentences are about the same thing, once the words that oppose them are taken away."""
    gone = {flip.left for flip in flips if flip.how == "opposites"} | {
        flip.right for flip in flips if flip.how == "opposites"
    }
    left, right = _without(left, gone), _without(right, gone)
    ours, theirs = left.stems, right.stems
    shared = ours & theirs
    if not shared or not _subjects_meet(left, right) or replaced_words(left, right):
        return False
    smaller, larger = sorted((len(ours), len(theirs)))
    contained = len(shared) / smaller
    union = len(shared) / (smaller + larger - len(shared))
    return contained >= 0.6 and (union >= 0.34 or (contained == 1.0 and len(shared) >= 3))


def _without(side: Profile, gone: set[str]) -> Profile:
    subject = tuple(stem for stem in side.subject if stem not in gone)
    return replace(side, words=tuple(word for word in side.words if word.stem not in gone), subject=subject)


def _subjects_meet(left: Profile, right: Profile) -> bool:
    """A word of the beginning of each sentence must occur in the other one."""
    if not left.subject or not right.subject:
        return bool(left.stems & right.stems)
    return bool(set(left.subject) & right.stems) and bool(set(right.subject) & left.stems)


def replaced_words(left: Profile, right: Profile) -> bool:
    """Whether a word stands where the other sentence has another ("sealing face" / "outer face"): then they differ."""
    ours, theirs = [word.stem for word in left.words], [word.stem for word in right.words]
    codes = SequenceMatcher(a=ours, b=theirs, autojunk=False).get_opcodes()
    return any(
        set(ours[i1:i2]) - right.stems and set(theirs[j1:j2]) - left.stems
        for tag, i1, i2, j1, j2 in codes
        if tag == "replace"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Words


@functools.lru_cache(maxsize=50_000)
def profile(text: str) -> Profile:
    """The content words (with negation) and numbers of a sentence."""
    plain = text.lower().replace("’", "'").replace("n't", " not")
    quantities, rest = find_quantities(_LETTERED.sub(r"\1-\2", plain))
    words: list[Word] = []
    negator: int | None = None
    reach = count = 0
    for token in _tokens(rest):
        if token == "NEG":
            count += 1
            negator, reach = count, _NEGATION_REACH
        elif token in ",;:.()" or token in {"but", "and", "because", "although", "while", "which", "so", "than"}:
            negator = None
        elif not _is_stop(token):
            words.append(Word(meaning(token), negator, token))
            reach -= 1
            negator = negator if reach > 0 else None
    return Profile(tuple(words), tuple(quantities), tuple(word.stem for word in words[:3]), _relation(rest))


_RELATIONS: tuple[tuple[str, bool, re.Pattern[str]], ...] = (
    ("cause", False, re.compile(
        r"\b(?:caused by|due to|results? from|resulting from|arises? from|stems? from|comes? from|originates? from|"
        r"because of|because|(?:a )?(?:result|consequence|effect) of|traced (?:back )?to)\b")),
    ("cause", True, re.compile(
        r"\b(?:causes?(?!\s*:)|leads? to|results? in|produces?|creates?|gives? rise to|triggers?|brings? about|provokes?)\b")),
    ("order", True, re.compile(r"\b(?:before|prior to|precedes?)\b")),
    ("order", False, re.compile(r"\b(?:after|follows?|following)\b")),
    ("comparison", True, re.compile(r"\bthan\b")),
)  # fmt: skip


def _relation(text: str) -> Relation | None:
    """The first relation that a sentence states (in lower case, without its numbers)."""
    for kind, forward, pattern in _RELATIONS:
        if match := pattern.search(text):
            before, after = _content(text[: match.start()]), _content(text[match.end() :])
            if before and after:
                return Relation(
                    kind, *((before, after) if forward else (after, before)), " ".join(text.split()).strip(" .")
                )
    return None


def _content(text: str) -> frozenset[str]:
    return frozenset(meaning(token) for token in re.findall(r"[a-z]+(?:-[a-z]+)*", text) if not _is_stop(token))


def _is_stop(token: str) -> bool:
    return token in _stop() or stem(token) in _stop_stems()


def _tokens(text: str) -> list[str]:
    for phrase in _negators():
        text = re.sub(rf"\b{phrase}\b", " NEG ", text)
    return re.findall(rf"NEG|{_TOKEN.pattern}", text)


@functools.cache
def _negators() -> tuple[str, ...]:
    return tuple(sorted(resource("antonyms.yaml")["negators"], key=len, reverse=True))


@functools.cache
def _stop() -> frozenset[str]:
    return frozenset(resource("antonyms.yaml")["stop"])


@functools.cache
def _stop_stems() -> frozenset[str]:
    return frozenset(stem(word) for word in _stop() if len(word) > 3)


@functools.cache
def _condemning() -> frozenset[str]:
    return frozenset(meaning(word) for word in resource("antonyms.yaml")["condemning"])


@functools.cache
def _opposed() -> frozenset[frozenset[str]]:
    pairs = resource("antonyms.yaml")["opposites"]
    return frozenset(frozenset((meaning(a), meaning(b))) for first, second in pairs for a in first for b in second)


@functools.lru_cache(maxsize=50_000)
def are_opposites(a: str, b: str) -> bool:
    """Whether two stems are opposed: by the list, or as a word and its negated form ("regular" / "irregular")."""
    if frozenset((a, b)) in _opposed():
        return True
    shorter, longer = sorted((a, b), key=len)
    if len(shorter) >= 4 and any(longer == prefix + shorter for prefix in _PREFIXES):
        return True
    return longer in {f"{shorter}-free", f"{shorter}less"}


@functools.cache
def _synonyms() -> dict[str, str]:
    return {stem(word): stem(words[0]) for words in resource("antonyms.yaml")["synonyms"] for word in words}


def meaning(word: str) -> str:
    """The stem by which a word is compared: that of the first of its synonyms."""
    return _synonyms().get(stem(word), stem(word))
