"""What a clause claims about the part: judging words, the negators that govern them, and of what they are said.

An even number of negators cancels out ("not free of defects"). What is only looked for, supposed, expected, or said of
a reference is set aside; what is said of "the rest" does not speak for the whole; and an appearance that the same
breath explains away ("what looks like a scratch is a reflection") is excused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sage_ad.evaluation.text.lexicon import cue_table, has_cue, judging_table, weak_good
from sage_ad.evaluation.text.normalise import stem, stem_set, stems
from sage_ad.evaluation.text.sentences import CONCESSIONS, Clause

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
        concept: the lexicon's concept, for a named defect ("bend|misplacement" where the words fit several).
        term: the words that were matched.
        denied: the stance comes from a negation ("no cracks" is good, denied).
        hedged: said with doubt.
        weak: an appearance rather than a judgement ("a dark line", "smooth").
        scope: said of the part; of the rest of it; or aside (of the reference, as a condition, as an expectation).
        excused: in the same breath it is called something else than it seems, or a weak appearance is called harmless.
        tolerated: in the same breath it is called harmless or within tolerance.
        by_similarity: no word of it is known; it only sounds like praise or like a complaint.
        peculiar: it tells what exactly is (not) as it should be ("not straight"), unlike "not in order".
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
    tolerated: bool = False
    by_similarity: bool = False
    peculiar: bool = False


@dataclass(frozen=True)
class _Match:
    start: int
    end: int
    name: str

    @property
    def good(self) -> bool:
        return self.name in {"good", "use-good"}


# A negator of this list reaches over commas: "no scratches, dents or cracks".
_LISTING = frozenset(
    " ".join(stems(entry))
    for entry in [
        "no",
        "without",
        "neither",
        "none",
        "free of",
        "free from",
        "zero",
        "nor",
        "absence of",
        "never",
        "nothing",
    ]
)
_FAR = stem_set("nothing none never not nowhere no neither")
_LINKS = stem_set(", or and nor any a an either other visible sign of the in even kind")
_TURNS = stem_set("only just merely actually really simply purely")
_COPULAS = stem_set("be come stem result belong originate remain qualify mean")
_SEEN = stem_set(
    "see find visible present detect observe exist evident apparent identify discern noticeable recognise recognisable "
    "appear occur there show spot make report note"
)
_COMPARING = stem_set("unlike than to with from against where versus in of on as")
_BETWEEN_MODAL = stem_set("still safely not never well easily only simply also again now without worry")
_NO_USE = stem_set(
    "say call rule exclude tell make repair mend fix replace clean wipe brush remove a an the due cause explain "
    "felt feel"
)
_FORESEEING = stem_set("would could may might will can")
_AFTER_FINE = stem_set(
    ", and or to for with as on by overall otherwise condition here apart except in at so too now but it the"
)
_NO_ADVICE = stem_set("think know see believe find agree worry mind notice match look appear show have seem meet say")
_SOFT = stem_set("differ different difference differently irregular irregularity unusual deviation deviate discrepancy")
_POINTING = stem_set("a an the this that these those it them which one , of for from")
_RULED_OUT = stem_set("rule exclude dismiss")
_HARDLY = stem_set("not nowhere never hardly")


def clause_claims(
    number: int, clause: Clause, around: tuple[tuple[str, ...], tuple[str, ...]], hedged: bool
) -> list[Claim]:
    """The claims of one clause.

    Args:
        number: the clause's number within the text.
        clause: the clause.
        around: stems before it in its sentence, and from it on (with what comments on it), for excuses.
        hedged: whether the clause is said with doubt.
    """
    negators = [
        _Match(*match) for match in cue_table("not-negators", "negators").find(clause.stems) if match[2] == "negators"
    ]
    cues = []
    for cue in (_Match(*match) for match in judging_table().find(clause.stems)):
        clashes = [n for n in negators if n.start < cue.end and cue.start < n.end]
        if any(n.end - n.start >= cue.end - cue.start for n in clashes):
            continue
        negators = [n for n in negators if n not in clashes]
        if cue.name != "neutral" and not _is_attribute(clause.stems, cue):
            cues.append(cue)
    read = (_claim(number, clause, around, hedged, cue, cues, negators) for cue in cues)
    claims = [claim for claim in read if claim]
    exception = _exception(number, clause, cues)
    if clause.opener in CONCESSIONS or clause.stems[:1] in (("only",), ("just",), ("mer",)):
        claims += _lacks(number, clause, claims)
    claims += _permissions(number, clause, claims)
    if (
        clause.stems[:2] == ("do", "not")
        and not set(clause.stems[2:3]) & _NO_ADVICE
        and not any(claim.kind == "use" for claim in claims)
    ):
        claims.append(Claim("bad", "use", clause.text, clause.sentence, number, term=clause.text, denied=True))
    return [*claims, exception] if exception else claims


def _is_attribute(sequence: tuple[str, ...], cue: _Match) -> bool:
    """Whether "fine" stands before a noun and means thin ("a fine line"), which judges nothing."""
    if sequence[cue.start : cue.end] != ("fine",) or cue.end == len(sequence):
        return False
    return sequence[cue.end] not in _AFTER_FINE


def _claim(
    number: int,
    clause: Clause,
    around: tuple[tuple[str, ...], tuple[str, ...]],
    hedged: bool,
    cue: _Match,
    cues: list[_Match],
    negators: list[_Match],
) -> Claim | None:
    concept = cue.name.partition(":")[2] or None
    flips = _flips(clause, cue, cues, negators)
    denied = flips % 2 == 1
    good = cue.good != denied
    weak = cue.name.startswith("weak:") or (
        cue.good and not denied and clause.stems[cue.start : cue.end] in weak_good()
    )
    excused = tolerated = False
    if weak and denied and concept:
        return None
    soft = clause.stems[cue.start] in _SOFT
    if not good and (concept or soft):
        excused, tolerated = _excuses(clause, cue, around, weak or soft)
        if weak and not excused and clause.opener in CONCESSIONS:
            weak = False
    return Claim(
        stance="good" if good else "bad",
        kind="use" if cue.name.startswith("use-") else "defect" if concept else "state",
        words=clause.text,
        sentence=clause.sentence,
        clause=number,
        concept=concept,
        term=" ".join(clause.words[cue.start : cue.end]),
        denied=denied,
        hedged=hedged,
        weak=weak,
        scope=_scope(clause, cue, good, bool(negators)),
        excused=excused,
        tolerated=tolerated,
        peculiar=clause.stems[cue.start : cue.end] in weak_good(),
    )


def _exception(number: int, clause: Clause, cues: list[_Match]) -> Claim | None:
    """A complaint about what is excepted, whatever it is called: "in order, apart from the wobbly handle"."""
    found = cue_table("exceptions").find(clause.stems)
    if not found or any(cue.start >= found[0][1] for cue in cues) or clause.opener in {"other"}:
        return None
    words = [word for word in clause.words[found[0][1] :] if stem(word) not in _POINTING]
    if not words or has_cue("harmless", clause.stems[found[0][1] :]):
        return None
    return Claim("bad", "defect", clause.text, clause.sentence, number, term=" ".join(words))


def _lacks(number: int, clause: Clause, claims: list[Claim]) -> list[Claim]:
    """A part that is said to be missing by "no" alone: "fine, but no wick on it"."""
    if claims or "no" not in clause.stems or clause.stems[-1] == "no":
        return []
    thing = clause.words[clause.stems.index("no") + 1]
    if has_cue("generic", (stem(thing),)) or has_cue("harmless", clause.stems):
        return []
    return [Claim("bad", "defect", clause.text, clause.sentence, number, "missing-part", f"no {thing}")]


def _permissions(number: int, clause: Clause, claims: list[Claim]) -> list[Claim]:
    """What may be done with the part, whatever it is: "can be driven on", "may not be opened"."""
    if any(claim.kind == "use" for claim in claims):
        return []
    for index, word in enumerate(clause.stems[:-2]):
        if word not in {"can", "may"}:
            continue
        after = [stem for stem in clause.stems[index + 1 : index + 6] if stem not in _BETWEEN_MODAL]
        if len(after) < 2 or after[0] != "be" or after[1] in _SEEN or after[1] in _NO_USE:
            return []
        if any(name != "neutral" for _, _, name in judging_table().find(tuple(after[1:2]))):
            return []
        denied = "not" in clause.stems[index + 1 : index + 4] or "no" in clause.stems[:index]
        return [
            Claim(
                "bad" if denied else "good",
                "use",
                clause.text,
                clause.sentence,
                number,
                term=clause.text,
                denied=denied,
            )
        ]
    return []


# --------------------------------------------------------------------------------------------------------- negation


def _flips(clause: Clause, cue: _Match, cues: list[_Match], negators: list[_Match]) -> int:
    """How many negators govern a cue."""
    governing = [n for n in negators if n.end <= cue.start and _governs(clause, n, cue, cues)]
    exceptions = cue_table("exceptions").find(clause.stems)
    if exceptions and cue.start >= exceptions[0][1]:
        governing = [n for n in governing if n.start >= exceptions[0][1]]
    if not cue.good and not governing:
        return _denied_behind(clause, cue, cues)
    return len(governing)


def _governs(clause: Clause, negator: _Match, cue: _Match, cues: list[_Match]) -> bool:
    """Whether a negator reaches a cue that stands to its right in the same clause."""
    between = [other for other in cues if negator.end <= other.start < cue.start]
    gap = clause.stems[negator.end : cue.start]
    word = " ".join(clause.stems[negator.start : negator.end])
    if not between:
        return ("," not in gap or word in _LISTING) and len(gap) <= (12 if word in _FAR else 7)
    last = between[-1]
    link = clause.stems[last.end : cue.start]
    linked = len(link) <= 4 and all(part in _LINKS or index == len(link) - 1 for index, part in enumerate(link))
    if not linked or ("," in link and word not in _LISTING) or not _governs(clause, negator, last, cues):
        return False
    if cue.good != last.good:
        # "no visible damage", "not in good repair": side by side they are one phrase; a link between them ends the reach.
        return not link
    return not ("and" in link and {"a", "an", "the"} & set(link))


def _denied_behind(clause: Clause, cue: _Match, cues: list[_Match]) -> int:
    """How often a defect word is denied by what follows it: "... is not to be seen" once, "cannot be ruled out" twice."""
    end = min([other.start for other in cues if other.start >= cue.end and other.good], default=len(clause.stems))
    tail = clause.stems[cue.end : end]
    for start, _, _ in cue_table("absent-after").find(tail):
        if tail[start] in _RULED_OUT:
            return 2 if "not" in tail[max(0, start - 4) : start] else 1
        return 1
    for index, word in enumerate(tail):
        if word in _HARDLY and set(tail[index + 1 : index + 5]) & _SEEN:
            return 1
    return 0


# ------------------------------------------------------------------------------------------------- scope and excuses


def _scope(clause: Clause, cue: _Match, good: bool, negated: bool) -> Scope:
    """Whether a cue speaks of the part, of its rest, or of something else (a reference, a condition, a wish)."""
    head, sequence = clause.stems[: cue.start], clause.stems
    if not good and has_cue("looked-for", head):
        return "aside"
    if has_cue("exceptions", head):
        return "part"
    if clause.opener in {"if", "unless"} or (has_cue("conditions", head[:3]) and "even" not in head[:3]):
        return "aside"
    if not cue.name.startswith("use-") and not negated and has_cue("expectations", head):
        return "aside"
    if not cue.name.startswith("use-") and _FORESEEING & set(head[-2:]) and "be" not in head[-1:]:
        return "aside"
    if _is_said_of_others(sequence, cue):
        return "aside"
    if good and has_cue("rest", (*sequence[: cue.start], "|", *sequence[cue.end :])):
        return "rest"
    return "part"


def _is_said_of_others(sequence: tuple[str, ...], cue: _Match) -> bool:
    """Whether a cue describes the reference or "a good part" instead of the part at hand."""
    for start, end, _ in cue_table("others").find(sequence):
        introduced = bool(set(sequence[max(0, start - 3) : start]) & _COMPARING) and "look" not in sequence[: cue.start]
        if introduced and start - 2 <= cue.start < end:
            return True
        if start <= 2 and cue.start >= end and cue.good and stem("match") not in sequence[cue.start : cue.end]:
            return True
    return False


def _excuses(
    clause: Clause, cue: _Match, around: tuple[tuple[str, ...], tuple[str, ...]], weak: bool
) -> tuple[bool, bool]:
    """Whether an appearance is explained away, and whether it is at least called tolerable."""
    head, tail = clause.stems[: cue.start], clause.stems[cue.end :]
    copula = bool(_COPULAS & set(tail[:6])) and bool(_positive("harmless", tail) or _positive("good", tail))
    attributed = bool(head) and bool(_positive("harmless", head[-2:]))
    equated = copula or attributed
    before, after = around
    if weak and (_positive("harmless", before) or _positive("harmless", after)):
        return True, False
    if not equated and not _positive("harmless", after):
        return False, False
    seeming = has_cue("seeming", clause.stems[: cue.end]) or has_cue("seeming", head)
    turned = bool(_TURNS & set(after))
    tolerated = bool(_positive("tolerance", after))
    return weak or seeming or (turned and not tolerated) or equated, tolerated


def _positive(name: str, sequence: tuple[str, ...]) -> bool:
    """Whether a cue of a list stands in the stems without a negator right before it."""
    found = cue_table("not-negators", "negators", name).find(sequence)
    denials = [match for match in found if match[2] == "negators"]
    return any(match[2] == name and not any(0 <= match[0] - n[1] <= 2 for n in denials) for match in found)
