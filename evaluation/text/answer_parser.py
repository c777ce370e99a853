"""Reads free text about a part: its yes or no, what it claims for and against the part, its doubts.

The parser goes clause by clause (`evaluation.text.sentences`, `evaluation.text.claims`). It knows no gold answer; the judge
compares.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sage_ad.evaluation.text.claims import Claim, Kind, Stance, clause_claims
from sage_ad.evaluation.text.final_answer import final_answer
from sage_ad.evaluation.text.lexicon import cue_table, has_cue, judging_table
from sage_ad.evaluation.text.normalise import plain, stem_set
from sage_ad.evaluation.text.sentence_similarity import SentenceSimilarity
from sage_ad.evaluation.text.sentences import CONCESSIONS, CONTRASTS, LABEL, Clause, split_clauses
from sage_ad.evaluation.text.yes_no import echo_yes_no, parse_yes_no, without_echoed_question


@dataclass(frozen=True)
class ParsedAnswer:
    """What a text says.

    Attributes:
        clauses: its clauses, in order (without the yes or no that opens it).
        claims: what is claimed, in order.
        yes_no: its yes (True) or no (False), None when it has neither.
        polar_words: the words that say so.
        hedges: words of doubt.
        undecided: it says that it cannot tell.
    """

    clauses: tuple[Clause, ...]
    claims: tuple[Claim, ...]
    yes_no: bool | None
    yes_no_words: str
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


def _without_yes_no(text: str, yes_no_words: str) -> str:
    """The text without the yes or no that opens it, which would else read as a negator or as a judgement."""
    bare = plain(without_echoed_question(text)).lstrip(" \"'*_#>-")
    if yes_no_words and bare.startswith(yes_no_words):
        return bare[len(yes_no_words) :].lstrip(" .,:;-!*_\"'")
    return without_echoed_question(text)


def _surroundings(clauses: list[Clause], number: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Stems before a clause in its sentence, and from the clause on; the next sentence counts if it comments on it.

    What stands beyond a contrast ("but", "however") is about something else.
    """
    sentence = clauses[number].sentence
    first, last = number, number
    while first > 0 and clauses[first - 1].sentence == sentence and clauses[first].opener not in CONCESSIONS:
        first -= 1
    while (
        last + 1 < len(clauses) and clauses[last + 1].sentence == sentence and clauses[last + 1].opener not in CONTRASTS
    ):
        last += 1
    before = tuple(stem for clause in clauses[first:number] for stem in (*clause.stems, "|"))
    mine = [stem for clause in clauses[number : last + 1] for stem in (*clause.stems, "|")]
    following = [clause for clause in clauses if clause.sentence == sentence + 1]
    if (
        following
        and last + 1 < len(clauses)
        and clauses[last + 1] is following[0]
        and following
        and following[0].stems[0] in {"it", "this", "that", "they", "these", "those"}
    ):
        mine += [stem for clause in following for stem in (*clause.stems, "|")]
    return before, tuple(mine)


_FILLERS = stem_set(
    "n/a that i we can could be there to see find at all here whatsoever worth mentioning on it of this kind so "
    "visible in sight the part probably really , seem have do will far as judge tell check criticise criticize "
    "complain object worry remark about"
)
_NONE = stem_set("none nothing")
_ANY = stem_set("any anything one")
_PERCEIVED = stem_set("see find identify spot detect make discover notice recognise recognize report")
_PERCEIVING = stem_set("not identify spot detect make out discover notice do recognise recognize report")


def _is_nothing_found(clause: Clause, silent_only: bool) -> bool:
    """Whether a clause says that there is nothing: "none that I can see", "I cannot identify any"."""
    rest = set(clause.stems) - _FILLERS
    if rest & _NONE:
        return not silent_only or not rest - _NONE
    perceived = bool(_PERCEIVED & set(clause.stems))
    return "not" in rest and perceived and bool(rest & _ANY) and not rest - _ANY - _PERCEIVING


def _doubts(clause: Clause) -> list[tuple[int, int, str]]:
    """Hedges of a clause; "may be used" is a permission and no doubt."""
    uses = [match for match in judging_table().find(clause.stems) if match[2].startswith("use-")]
    found = cue_table("hedges").find(clause.stems)
    return [match for match in found if not any(use[0] <= match[1] and match[0] < use[1] for use in uses)]


def read(text: str, question: str = "") -> ParsedAnswer:
    """Reads a text; with the question, answers that only echo its verb ("It isn't.") are understood too.

    Of what a model writes its final answer is read (`evaluation.text.final_answer`): no thinking, no tags.
    """
    text = final_answer(text)
    yes_no, yes_no_words = parse_yes_no(text)
    clauses = split_clauses(_without_yes_no(text, yes_no_words))
    claims: list[Claim] = []
    hedges: list[str] = []
    undecided = False
    for number, clause in enumerate(clauses):
        doubts = _doubts(clause)
        hedges += [" ".join(clause.words[start:end]) for start, end, _ in doubts]
        undecided = undecided or has_cue("undecided", clause.stems)
        mine = clause_claims(number, clause, _surroundings(clauses, number), bool(doubts))
        claims += mine
        if (clause.sentence == 0 or clause.opener == LABEL) and _is_nothing_found(clause, silent_only=bool(mine)):
            claims.append(
                Claim("good", "state", clause.text, clause.sentence, number, denied=True, hedged=bool(doubts))
            )
    parsed = ParsedAnswer(tuple(clauses), tuple(claims), yes_no, yes_no_words, tuple(hedges), undecided)
    return _with_echo(parsed, question) if yes_no is None and question and clauses else parsed


SOUNDS = 0.3
"""From this sentiment on, a clause without any known word counts as praise or as a complaint."""
OVERRULES = 0.6
"""From this sentiment on, praise makes a defect word in it weak evidence."""


def with_sentiment(parsed: ParsedAnswer, similarity: SentenceSimilarity) -> ParsedAnswer:
    """Hears how each clause sounds as a whole, beside the words that are known.

    A clause without a known word becomes a claim if it sounds clearly like praise or like a complaint; such claims carry
    a verdict only where nothing else does. A defect word in a clause that sounds like praise becomes weak.
    """
    sounds = {
        number: similarity.sentiment(clause.text) if len(clause.words) >= 3 else 0.0
        for number, clause in enumerate(parsed.clauses)
    }
    claims = [
        replace(claim, weak=True) if _sounds_harmless(claim, parsed.clauses[claim.clause], sounds) else claim
        for claim in parsed.claims
    ]
    judged = {claim.clause for claim in claims}
    for number, clause in enumerate(parsed.clauses):
        if number in judged or abs(sounds[number]) < SOUNDS or clause.opener in {"if", "unless"}:
            continue
        if has_cue("hedges", clause.stems):
            continue
        stance: Stance = "bad" if sounds[number] > 0 else "good"
        weak = stance == "good" or clause.opener not in CONCESSIONS
        claims.append(
            Claim(
                stance, "state", clause.text, clause.sentence, number, term=clause.text, weak=weak, by_similarity=True
            )
        )
    return replace(parsed, claims=tuple(claims))


def _sounds_harmless(claim: Claim, clause: Clause, sounds: dict[int, float]) -> bool:
    """Whether a defect word stands in a longer clause that as a whole sounds like praise ("the holes are what one wants")."""
    if claim.stance != "bad" or claim.kind != "defect" or claim.concept is None:
        return False
    return clause.opener not in CONCESSIONS and len(clause.words) >= 5 and sounds[claim.clause] <= -OVERRULES


def _with_echo(parsed: ParsedAnswer, question: str) -> ParsedAnswer:
    """Takes the yes or no from a first clause that repeats the question's verb and claims nothing else."""
    echo = echo_yes_no(question, parsed.clauses[0].words)
    return parsed if echo is None else replace(parsed, yes_no=echo[0], yes_no_words=echo[1])
