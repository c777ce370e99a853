"""Cuts free text into sentences and clauses, the units in which judgement and negation hold."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from sage_ad.evaluation.text.normalise import plain, stem, stem_set, word_set

TOKEN = re.compile(r"[a-z0-9]+(?:[-/'][a-z0-9]+)*|[,:()]|\s-\s")
_SENTENCE_END = re.compile(r"(?<=[a-z0-9)\"'])[.!?]+(?=\s|$|[A-Z\"])|[;\n]+|[.!?]{2,}|\s*(?:=>|->|→)\s*")
_ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|approx|ca|fig|n\.g|vs|etc)\.(?=\s+[a-z0-9,])")
_OPENERS = word_set(
    "but however although though yet whereas while whilst so because since therefore hence thus which despite "
    "still nevertheless nonetheless as albeit unless if until except when where apart besides"
)
CONCESSIONS = word_set("but however although though yet despite nevertheless nonetheless albeit except apart besides")
"""Openers after which something follows that stands against the rest."""
LABEL = "label"
"""Opener of what stands behind a heading such as "Defect:"."""
_LABELS = stem_set(
    "defect defects finding findings location place position area verdict result status recommendation action issue "
    "problem fault flaw anomaly type kind cause consequence conclusion reason comment remark note severity damage "
    "observation disposition answer"
)
CONTRASTS = word_set("however except apart besides")
"""Openers that end what the clauses before them are about."""
_STARTERS = word_set(
    "a an the it its this that these those there they we i you he she all every each is are was has have can "
    "could should must may might will would do does did need needs everything nothing no none not"
)
_VERBS = word_set(
    "be have show look seem appear can could should must may might will would do need match meet conform run sit "
    "lie lead make cause allow remain stay find see detect reach cross go reject scrap replace use accept carry "
    "cover"
)
_LIST_NEGATORS = frozenset({"no", "without", "neither", "free", "nor", "any"})
_BEFORE_SO = frozenset({"not", "and", "is", "say", "think", "be", "or", "quite", "do"})


@dataclass(frozen=True)
class Clause:
    """A clause: its words, their stems, the sentence that it belongs to, and the word that opened it."""

    words: tuple[str, ...]
    stems: tuple[str, ...]
    sentence: int
    opener: str = ""

    @property
    def text(self) -> str:
        """The clause as words."""
        return " ".join(self.words).replace(" ,", ",")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text (also at semicolons, line ends and arrows), in plain lower case."""
    lowered = _ABBREVIATIONS.sub(lambda match: match.group(1).replace(".", ""), plain(text))
    return [piece.strip() for piece in _SENTENCE_END.split(lowered) if piece and piece.strip(" .!?\"'*_#")]


def split_clauses(text: str) -> list[Clause]:
    """The clauses of a text, in order."""
    clauses: list[Clause] = []
    for number, sentence in enumerate(split_sentences(text)):
        clauses += _clauses_of_sentence(number, [token.strip() for token in TOKEN.findall(sentence)])
    return [clause for clause in (_trim(clause) for clause in clauses) if clause.words]


def _clauses_of_sentence(number: int, tokens: list[str]) -> list[Clause]:
    clauses: list[Clause] = []
    current: list[str] = []
    opener = ""
    for index, token in enumerate(tokens):
        if token in {":", "(", ")", "-"}:
            if token == ":" and len(current) <= 2 and current and stem(current[-1]) in _LABELS:
                current, opener = [], LABEL
                continue
            if current:
                clauses.append(Clause(tuple(current), (), number, opener))
            current, opener = [], token
            continue
        if current and _begins(tokens, index, current):
            clauses.append(Clause(tuple(current), (), number, opener))
            current, opener = [], token
        elif not current and token in _OPENERS:
            opener = token
        if token != "," or current:
            current.append(token)
    if current:
        clauses.append(Clause(tuple(current), (), number, opener))
    return clauses


def _begins(tokens: list[str], index: int, current: list[str]) -> bool:
    """Whether a new clause begins at this token."""
    token, following = tokens[index], tokens[index + 1 :]
    before = current[-1]
    if token in _OPENERS:
        return _opens(token, before, following)
    if token == "and" and following and following[0] in _STARTERS and len(current) > 1:
        return True
    if before != ",":
        return False
    segment = [token, *following[:11]]
    for stop in (",", ":", "(", ")", "-"):
        if stop in segment:
            segment = segment[: segment.index(stop)]
    if token in {"or", "nor"} or (
        {"or", "nor"} & set(segment) and token not in _STARTERS and _LIST_NEGATORS & set(current)
    ):
        return False
    has_verb = any(stem(word) in _VERBS for word in segment)
    return has_verb or token in {
        "not",
        "no",
        "without",
        "rather",
        "instead",
        "just",
        "only",
        "merely",
        "nothing",
        "none",
    }


def _opens(token: str, before: str, following: list[str]) -> bool:
    """Whether an opening word really opens a clause where it stands ("anything but", "as good as" do not)."""
    if token == "but":
        return before not in {"anything", "nothing", "all", "not", "none"}
    if token == "so":
        return before not in _BEFORE_SO
    if token == "as":
        return (
            bool(following)
            and following[0] in {"the", "it", "there", "this"}
            and following[1:2] not in (["should"], ["ought"], ["must"])
        )
    if token == "apart":
        return following[:1] == ["from"]
    if token in {"still", "yet"}:
        return before == "," or (token == "yet" and before not in {"not", "as"})
    if token in {"which", "where", "when", "if", "since"}:
        return (
            before not in {"as", "even", "of", "in", "on", "at", "through", "to", "from", "see", "check", "say"}
            or before == ","
        )
    return True


def _trim(clause: Clause) -> Clause:
    words = list(clause.words)
    while words and words[-1] == ",":
        words.pop()
    while words and words[0] == ",":
        words.pop(0)
    return replace(clause, words=tuple(words), stems=tuple(word if word == "," else stem(word) for word in words))
