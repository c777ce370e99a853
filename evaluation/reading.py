"""Reads free text about a part into claims: what is said to be good or bad about it, how firmly, and of what.

The reader goes clause by clause: judging words and defect words are looked up (`cues.yaml`, `lexicon.yaml`), then the
negators that govern each are counted (an even number cancels out: "not free of defects"), and what is only looked for,
supposed, expected, or said of the reference is set apart. It knows nothing of the truth; the judge compares.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Literal

from evaluation.stemming import PhraseTable, plain, stem, stems

Stance = Literal["good", "bad"]
Kind = Literal["state", "defect", "use"]
Scope = Literal["part", "rest", "aside"]


@dataclass(frozen=True)
class Claim:
    """One thing said.

    Attributes:
        stance: whether it speaks for the part or against it.
        kind: of its state as a whole ("state"), of a named defect ("defect"), or of its use ("use").
        words: the clause it stands in.
        sentence, clause: where it stands (numbers within the text).
        concept: the lexicon's concept, for a named defect.
        term: the words that were matched.
        denied: the stance comes from a negation ("no cracks" is good, denied).
        hedged: said with doubt.
        weak: an appearance rather than a judgement ("a dark line", "smooth").
        scope: said of the part; of the rest of it; or aside (of the reference, as a condition, as an expectation).
        excused: in the same breath it is called harmless, or something else than it seems.
    """

    stance: Stance
    kind: Kind
    words: str
    sentence: int
    clause: int
    concept: str | None = None
    term: str = ""
    denied: bool = False
    hedged: bool = False
    weak: bool = False
    scope: Scope = "part"
    excused: bool = False


@dataclass(frozen=True)
class Clause:
    """A clause: its words, their stems, and which sentence it belongs to."""

    words: tuple[str, ...]
    stems: tuple[str, ...]
    sentence: int
    opener: str = ""

    @property
    def text(self) -> str:
        """The clause as words."""
        return " ".join(self.words)


@dataclass(frozen=True)
class Reading:
    """What a text says: its clauses, its claims, its doubts, and whether it opens or closes with a yes or a no."""

    clauses: tuple[Clause, ...]
    claims: tuple[Claim, ...]
    polar: bool | None
    polar_words: str
    hedges: tuple[str, ...]
    undecided: bool

    def asserted(self, stance: Stance, kind: Kind | None = None) -> list[Claim]:
        """Claims of one stance that are said of the part itself and are neither weak nor excused."""
        return [
            claim
            for claim in self.claims
            if claim.stance == stance
            and claim.scope == "part"
            and not claim.weak
            and not claim.excused
            and kind in (None, claim.kind)
        ]


@cache
def cue_lists() -> dict[str, list[str]]:
    """The word lists of cues.yaml."""
    import yaml

    return yaml.safe_load(files("evaluation").joinpath("cues.yaml").read_text(encoding="utf-8"))


@cache
def lexicon() -> dict[str, dict]:
    """The concepts of lexicon.yaml."""
    import yaml

    return yaml.safe_load(files("evaluation").joinpath("lexicon.yaml").read_text(encoding="utf-8"))


@cache
def _judging_table() -> PhraseTable:
    """Every phrase that carries a stance; defect words come as "defect:<concept>" or "weak:<concept>"."""
    cues = cue_lists()
    phrases = {name: cues[name] for name in ("use-good", "use-bad", "good", "bad")}
    for concept, entry in lexicon().items():
        phrases[f"weak:{concept}"] = entry.get("weak", [])
        phrases[f"defect:{concept}"] = entry["terms"]
    return PhraseTable(phrases)


@cache
def _table(*names: str) -> PhraseTable:
    return PhraseTable({name: cue_lists()[name] for name in names})


@cache
def _weak_good() -> frozenset[tuple[str, ...]]:
    return frozenset(stems(entry) for entry in cue_lists()["good-weak"])


# ---------------------------------------------------------------------------------------------------------- clauses

_TOKEN = re.compile(r"[a-z0-9]+(?:[-/'][a-z0-9]+)*|[,:()]|\s-\s")
_SENTENCE_END = re.compile(r"(?<=[a-z0-9)\"'])[.!?]+(?=\s|$|[A-Z\"])|[;\n]+|[.!?]{2,}")
_OPENERS = frozenset(
    "but however although though yet whereas while whilst so because since therefore hence thus which despite still "
    "nevertheless nonetheless as albeit unless if until except when where".split()
)
_STARTERS = frozenset(
    "a an the it its this that these those there they we i you he she all every each is are was has have can cannot could "
    "should must may might will would do does not needs need everything nothing no".split()
)
_VERBS = frozenset(
    "be have show look seem appear can could should must may might will would do need match meet conform run sit lie lead "
    "make cause allow remain stay find see detect reach cross go reject scrap replace use accept".split()
)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text (also at semicolons and line ends), in plain lower case."""
    return [piece.strip() for piece in _SENTENCE_END.split(plain(text)) if piece and piece.strip(" .!?\"'")]


def _starts_clause(token: str, following: list[str], after_comma: bool) -> bool:
    """Whether a clause begins at `token`, seen from the words up to the next comma."""
    if token in _OPENERS:
        return token != "as" or bool(following[:1]) and following[0] in {"the", "it", "there", "this"}
    if not after_comma:
        return False
    segment = following[:12]
    for word in segment:
        if word in {",", ":", "(", ")"}:
            break
        if stem(word) in _VERBS:
            return True
    return token in {"not", "no", "without", "rather", "instead", "just", "only", "merely"} and stem(token) not in _VERBS


def split_clauses(text: str) -> list[Clause]:
    """The clauses of a text, in order."""
    clauses: list[Clause] = []
    for number, sentence in enumerate(split_sentences(text)):
        tokens = [token.strip() for token in _TOKEN.findall(sentence)]
        current: list[str] = []
        opener = ""

        def close(number: int = number) -> None:
            nonlocal current
            if current:
                clauses.append(Clause(tuple(current), tuple(stem(word) for word in current), number, opener))
            current = []

        for index, token in enumerate(tokens):
            following = tokens[index + 1 :]
            if token in {":", "(", ")", "-"}:
                close()
                opener = ""
                continue
            if token == ",":
                if current:
                    current.append(",")
                continue
            after_comma = bool(current) and current[-1] == ","
            joined = token in {"and", "or", "nor"} and bool(following) and following[0] in _STARTERS and len(current) > 1
            if _starts_clause(token, [token, *following], after_comma) or (joined and token != "or"):
                if not (token == "so" and index and tokens[index - 1] in {"not", "and", "is", "say", "think"}):
                    close()
                    opener = token if token in _OPENERS or joined else ","
            current.append(token)
        close()
    return [clause for clause in (_trim(clause) for clause in clauses) if clause.words]


def _trim(clause: Clause) -> Clause:
    words = list(clause.words)
    while words and words[-1] == ",":
        words.pop()
    while words and words[0] == ",":
        words.pop(0)
    return replace(clause, words=tuple(words), stems=tuple(word if word == "," else stem(word) for word in words))


# ----------------------------------------------------------------------------------------------------------- claims

_LISTING = frozenset({"no", "without", "neither", "none", "free", "free of", "free from", "zero", "nor", "absence of", "never"})
_LINKS = frozenset({",", "or", "and", "nor", "any", "a", "an", "either", "other", "visible", "sign", "of", "the"})
_HARMLESS_TURN = frozenset("only just merely actually really simply nothing purely mere".split())


@dataclass(frozen=True)
class _Match:
    start: int
    end: int
    name: str


def _negators(clause: Clause) -> list[_Match]:
    table = _table("not-negators", "negators")
    return [_Match(*match) for match in table.find(clause.stems) if match[2] == "negators"]


def _exception_start(clause: Clause) -> int:
    """Position behind "except", "apart from", ...: there, what was negated before counts as asserted."""
    matches = _table("exceptions").find(clause.stems)
    return matches[0][1] if matches else len(clause.stems) + 1


def _governs(clause: Clause, negator: _Match, cue: _Match, cues: list[_Match], good: bool) -> bool:
    """Whether `negator` reaches `cue`, which stands to its right in the same clause."""
    between = [other for other in cues if negator.end <= other.start < cue.start]
    gap = clause.stems[negator.end : cue.start]
    word = " ".join(clause.stems[negator.start : negator.end])
    if not between:
        if "," in gap and word not in _LISTING:
            return False
        return len(gap) <= (12 if word in {"nothing", "none", "never", "not", "nowhere", "no"} else 7)
    last = between[-1]
    link = clause.stems[last.end : cue.start]
    linked = all(part in _LINKS or index == len(link) - 1 for index, part in enumerate(link)) and len(link) <= 4
    if not linked or not _governs(clause, negator, last, cues, good):
        return False
    if "," in link and word not in _LISTING:
        return False
    last_good = last.name in {"good", "use-good"}
    if good != last_good and not ({"or", "nor"} & set(link) and not good):
        return not link and not good
    return not ("and" in link and {"a", "an", "the"} & set(link))


def _denied_behind(clause: Clause, cue: _Match, cues: list[_Match]) -> int:
    """How many times a defect word is denied by what follows it ("... is not to be seen", "cannot be ruled out")."""
    tail_end = min([other.start for other in cues if other.start >= cue.end and other.name in {"good", "use-good"}] + [len(clause.stems)])
    tail = clause.stems[cue.end : tail_end]
    for start in range(len(tail)):
        for table_start, table_end, _ in _table("absent-after").find(tail[start : start + 8]):
            phrase = tail[start + table_start : start + table_end]
            if any(name.startswith(("defect:", "weak:")) for _, _, name in _judging_table().find(tail[:start])):
                pass
            denials = 1
            if phrase[0] in {"rule", "exclude", "exclud", "dismiss"} and "not" in tail[max(0, start + table_start - 4) : start + table_start]:
                denials = 2
            return denials
        break
    gaps = [index for index, word in enumerate(tail) if word in {"not", "nowhere", "never", "hardly"}]
    for index in gaps:
        if set(tail[index + 1 : index + 5]) & {"see", "find", "visibl", "present", "detect", "observ", "exist", "evident", "apparent", "identif", "discern", "noticeabl", "recogniz", "appear", "occur", "there"}:
            return 1
    return 0


def _scope_of(clause: Clause, cue: _Match, good: bool) -> Scope:
    """Whether the cue speaks of the part, of its rest, or of something else (a reference, a condition, a wish)."""
    head, sequence = clause.stems[: cue.start], clause.stems
    if _table("looked-for").find(head) and not good:
        return "aside"
    if clause.opener in {"if", "unless"} or (head and _table("conditions").find(head[:3])):
        return "aside"
    if cue.name not in {"use-good", "use-bad"} and _table("expectations").find(head) and not _negators(clause):
        return "aside"
    for start, end, _ in _table("others").find(sequence):
        introduced = set(sequence[max(0, start - 3) : start]) & {"unlike", "than", "to", "with", "from", "against", "where", "versu", "in", "of", "on", "as"}
        if start <= cue.start < end and introduced and "look" not in head:
            return "aside"
        subject = start <= 2 and cue.start >= end
        if subject and cue.name in {"good", "use-good"} and stem("match") not in sequence[cue.start : cue.end]:
            return "aside"
    if good and _table("rest").find(sequence[: cue.start] + ("|",) + sequence[cue.end :]):
        return "rest"
    return "part"


def _is_excused(clause: Clause, cue: _Match, sentence: tuple[str, ...], weak: bool) -> bool:
    """Whether the sentence that reports an appearance explains it away as harmless."""
    harmless = _table("not-negators", "negators", "harmless").find(sentence)
    spots = [match for match in harmless if match[2] == "harmless"]
    if not spots:
        return False
    positive = [spot for spot in spots if not any(match[2] == "negators" and 0 <= spot[0] - match[1] <= 2 for match in harmless)]
    if not positive:
        return False
    seeming = bool(_table("seeming").find(sentence))
    turned = bool(_HARMLESS_TURN & set(sentence))
    return weak or seeming or turned or bool(_table("tolerance").find(sentence))


def _clause_claims(number: int, clause: Clause, sentence: tuple[str, ...], hedged: bool) -> list[Claim]:
    cues = [_Match(*match) for match in _judging_table().find(clause.stems)]
    negators = _negators(clause)
    cues = [cue for cue in cues if not any(n.start < cue.end and cue.start < n.end for n in negators)]
    exception = _exception_start(clause)
    claims = []
    for cue in cues:
        good = cue.name in {"good", "use-good"}
        concept = cue.name.partition(":")[2] or None
        weak = cue.name.startswith("weak:") or (good and clause.stems[cue.start : cue.end] in _weak_good())
        governing = [n for n in negators if n.end <= cue.start and _governs(clause, n, cue, cues, good)]
        if cue.start >= exception and all(n.end <= exception for n in governing):
            governing = []
        flips = len(governing)
        if not good and not governing:
            flips = _denied_behind(clause, cue, cues)
        denied = flips % 2 == 1
        stance: Stance = "good" if good != denied else "bad"
        kind: Kind = "use" if cue.name.startswith("use-") else "defect" if concept else "state"
        claims.append(
            Claim(
                stance=stance,
                kind=kind,
                words=clause.text.replace(" ,", ","),
                sentence=clause.sentence,
                clause=number,
                concept=concept,
                term=" ".join(clause.words[cue.start : cue.end]),
                denied=denied,
                hedged=hedged or flips == 2,
                weak=weak and not (denied and good),
                scope=_scope_of(clause, cue, good != denied),
                excused=stance == "bad" and bool(concept) and _is_excused(clause, cue, sentence, weak),
            )
        )
    return claims


# -------------------------------------------------------------------------------------------------------- yes and no

_POLAR_FOLLOWERS = frozenset(
    "it the this there that they i we you a an its these those because since as but and so not all both everything nothing "
    "here in on at to one some with due".split()
)


def _polar_at_start(sentence: str) -> tuple[bool, str] | None:
    """A yes or a no that opens a sentence, if it is one ("No, ..." and not "No scratch ...")."""
    sequence = tuple(_TOKEN.findall(sentence.strip(" \"'*_#>-")))
    sequence = tuple(token.strip() for token in sequence)
    skip = 0
    while skip < len(sequence) and sequence[skip] in {"answer", "verdict", "the", "my", "is", ":", "-", "well", "hm", "hmm", "oh", "ok", ",", "so", "result", "conclusion", "final", "a", "clear", "overall", "in", "short", "unfortunately", "sadly", "i", "say", "would", "statement"}:
        skip += 1
        if skip > 6:
            break
    for begin in (0, skip):
        rest = sequence[begin:]
        best: tuple[int, bool] | None = None
        for name, value in (("no", False), ("yes", True)):
            for entry in cue_lists()[name]:
                key = tuple(plain(entry).split())
                if rest[: len(key)] == key and (best is None or len(key) > best[0]):
                    best = (len(key), value)
        if best is None:
            continue
        after = rest[best[0]] if len(rest) > best[0] else ""
        long = best[0] >= 2 and rest[0] not in {"it", "they", "there"}
        strong = rest[0] in {"yes", "true", "false", "nope", "yep", "yeah", "affirmative"} and after not in {"to", "colour", "color", "copy"}
        if after in {"", ",", ":", "-", "("} or strong or (long and after not in {"of"}):
            return best[1], " ".join(rest[: best[0]])
        if rest[0] in {"no", "yes"} and after in _POLAR_FOLLOWERS:
            return best[1], rest[0]
    return None


def _polar_at_end(sentence: str) -> tuple[bool, str] | None:
    match = re.search(
        r"(?:answer|verdict|conclusion|so|hence|therefore|thus|result|say|says|is|->|=>|:|,|-)\s*(?:is|it is|would be|must be|:|a|clear|to|say|,)*\s*"
        r"\W?\b(yes|no|true|false|affirmative|negative)\b\W*$",
        sentence,
    )
    if not match:
        return None
    return match.group(1) in {"yes", "true", "affirmative"}, match.group(1)


def read_polar(text: str) -> tuple[bool | None, str]:
    """The yes or no of an answer, with the words that say it; (None, "") when there is none."""
    sentences = split_sentences(text)
    if not sentences:
        return None, ""
    first = _polar_at_start(sentences[0])
    if first:
        return first
    for sentence in reversed(sentences):
        found = _polar_at_end(sentence)
        if found:
            return found
    for sentence in sentences[1:]:
        if len(sentence.split()) <= 3:
            found = _polar_at_start(sentence)
            if found:
                return found
    return None, ""


def _without_polar(text: str, polar_words: str) -> str:
    """The text without the yes or no that opens it, which would else read as a negator or as a judgement."""
    bare = plain(text).lstrip(" \"'*_#>-")
    return bare[len(polar_words) :].lstrip(" .,:-!*_\"'") if polar_words and bare.startswith(polar_words) else text


def read(text: str) -> Reading:
    """Reads a text; see the module's docstring."""
    polar, polar_words = read_polar(text)
    clauses = split_clauses(_without_polar(text, polar_words))
    by_sentence: dict[int, list[str]] = {}
    for clause in clauses:
        by_sentence.setdefault(clause.sentence, []).extend((*clause.stems, "|"))
    claims: list[Claim] = []
    hedges: list[str] = []
    undecided = False
    for number, clause in enumerate(clauses):
        doubts = _table("hedges").find(clause.stems)
        hedges += [" ".join(clause.words[start:end]) for start, end, _ in doubts]
        undecided = undecided or bool(_table("undecided").find(clause.stems))
        claims += _clause_claims(number, clause, tuple(by_sentence[clause.sentence]), bool(doubts))
    return Reading(tuple(clauses), tuple(claims), polar, polar_words, tuple(hedges), undecided)
