"""Logic of an answer: does the verdict follow from its reasons, is it free of contradiction, does the consequence agree, do
the facts that it cites exist and fit? Facts are cited by number ("[2]", "fact 2") or announced ("it is known that").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sage_ad.evaluation.inspection import Family, Verdict
from sage_ad.evaluation.rubric import Fault
from sage_ad.evaluation.text.answer_parser import ParsedAnswer
from sage_ad.evaluation.text.claims import Claim
from sage_ad.evaluation.text.keywords import particulars
from sage_ad.evaluation.text.normalise import stem_set, stems, word_set
from sage_ad.evaluation.text.sentence_similarity import SentenceSimilarity
from sage_ad.evaluation.text.sentences import split_sentences
from sage_ad.evaluation.text.stated_verdict import STRONG, SpokenVerdict

_SO = word_set("so therefore hence thus otherwise")
_EFFECTS = stem_set(
    "would could may might will lead cause allow let lose reduce risk danger dangerous unsafe affect impair weaken endanger "
    "otherwise consequence effect result"
)
FITS = 0.25
"""Similarity from which on a sentence can be said to use the fact that it numbers."""
EXISTS = 0.55
"""Similarity from which on an announced fact counts as one of those given."""
_NUMBER = re.compile(r"\[(\d{1,2})\]|\bfact (?:no\.? ?|number )?(\d{1,2})\b")
_ANNOUNCED = re.compile(
    r"\b(?:according to (?:the |our |known )?(?:facts?|knowledge|experience|manual|literature|handbook|data ?sheet)"
    r"|(?:it is|as is|is) (?:well[- ])?known(?: that)?|(?:the|one|a) (?:known )?fact (?:says|states|tells)(?: that)?"
    r"|the facts (?:say|state|tell)(?: that)?)\b[:,]?"
)


def consequence_faults(parsed: ParsedAnswer, state: Verdict, family: Family) -> list[Fault]:
    """Faults of what the answer says may be done with the part, held against the verdict `state`."""
    uses = [claim for claim in parsed.claims if claim.kind == "use" and claim.scope != "aside"]
    wrong_stance = "good" if state == "anomalous" else "bad"
    wrong = [claim for claim in uses if claim.stance == wrong_stance]
    if wrong:
        return [Fault.of("wrong-consequence", words=wrong[0].words)]
    # A normal part has no consequence to tell of, once the question itself has been answered.
    if family == "defect diagnosis" and state == "anomalous" and not uses and not _tells_effect(parsed):
        return [Fault.of("no-consequence")]
    return []


def _tells_effect(parsed: ParsedAnswer) -> bool:
    """Whether a clause tells what may come of it ("it could break under load", "so moisture gets in")."""
    return any(clause.opener in _SO or _EFFECTS & set(clause.stems) for clause in parsed.clauses)


def played_down(parsed: ParsedAnswer) -> list[Claim]:
    """Defects that the answer reports and calls harmless or tolerable in the same breath."""
    return [
        claim
        for claim in parsed.claims
        if claim.stance == "bad" and claim.concept and claim.tolerated and not claim.weak
    ]


def reason_faults(
    parsed: ParsedAnswer, verdict: SpokenVerdict, question: str = "", product: str | None = None
) -> list[Fault]:
    """Faults of the reasons themselves: none given, only the verdict repeated, or set against the verdict."""
    if verdict.split and verdict.by_words is not None:
        against = verdict.good if verdict.by_words == "normal" else verdict.bad
        return [Fault.of("opposite-reason", said=parsed.yes_no_words, words=against)]
    if min(verdict.good_weight, verdict.bad_weight) >= STRONG:
        return [Fault.of("contradiction", good=verdict.good, bad=verdict.bad)]
    if not parsed.clauses:
        return [Fault.of("no-reason")]
    stated = [stem for clause in parsed.clauses for stem in particulars(clause, question, product)]
    named = [claim for claim in parsed.claims if claim.concept and not set(stems(claim.term)) <= set(stems(question))]
    if not stated and not named:
        return [Fault.of("general-reason")]
    return []


def doubt_faults(verdict: SpokenVerdict) -> list[Fault]:
    """Faults of doubt: a hedged verdict is a guess."""
    if not verdict.hedges:
        return []
    return [Fault.of("hedged-verdict", words=verdict.hedges[0]), Fault.of("guess", words=verdict.hedges[0])]


def cited_sentences(answer: str) -> Iterator[tuple[int | None, str]]:
    """Sentences that cite a fact: its number (None when only announced) and the sentence without the citation."""
    for sentence in split_sentences(answer):
        for number in _NUMBER.finditer(sentence):
            yield int(number.group(1) or number.group(2)), _NUMBER.sub("", sentence).strip(" ,:")
        if not _NUMBER.search(sentence) and (match := _ANNOUNCED.search(sentence)):
            yield None, sentence[match.end() :].strip(" ,:") or sentence


def citation_faults(answer: str, facts: Sequence[str], similarity: SentenceSimilarity) -> list[Fault]:
    """Faults of the facts cited: a number that no fact has, a sentence that its fact does not bear, a fact made up."""
    faults = []
    for number, sentence in cited_sentences(answer):
        if number is not None and not 1 <= number <= len(facts):
            faults.append(Fault.of("unknown-fact", words=f"fact {number} of {len(facts)}"))
        elif number is not None and similarity.between(sentence, [facts[number - 1]])[0] < FITS:
            faults.append(Fault.of("unfit-fact", words=sentence))
        elif number is None and max(similarity.between(sentence, list(facts)), default=0.0) < EXISTS:
            faults.append(Fault.of("unknown-fact", words=sentence))
    return faults
