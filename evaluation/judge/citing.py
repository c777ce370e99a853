"""Facts that an answer cites: do they exist among the facts that it was given, and do they fit what it says?

Cited are facts by number ("[2]", "fact 2") and by announcement ("according to the facts", "it is known that").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sage_ad.evaluation.rubric import Fault
from sage_ad.evaluation.text.sentence_similarity import SentenceSimilarity
from sage_ad.evaluation.text.sentences import split_sentences

FITS = 0.25
"""Likeness from which on a sentence can be said to use the fact that it numbers."""
EXISTS = 0.55
"""Likeness from which on an announced fact counts as one of those given."""
_NUMBER = re.compile(r"\[(\d{1,2})\]|\bfact (?:no\.? ?|number )?(\d{1,2})\b")
_ANNOUNCED = re.compile(
    r"\b(?:according to (?:the |our |known )?(?:facts?|knowledge|experience|manual|literature|handbook|data ?sheet)"
    r"|(?:it is|as is|is) (?:well[- ])?known(?: that)?|(?:the|one|a) (?:known )?fact (?:says|states|tells)(?: that)?"
    r"|the facts (?:say|state|tell)(?: that)?)\b[:,]?"
)


def cited_sentences(answer: str) -> Iterator[tuple[int | None, str]]:
    """Sentences that cite a fact: its number (None when only announced) and the sentence without the citation."""
    for sentence in split_sentences(answer):
        for number in _NUMBER.finditer(sentence):
            yield int(number.group(1) or number.group(2)), _NUMBER.sub("", sentence).strip(" ,:")
        if not _NUMBER.search(sentence) and (match := _ANNOUNCED.search(sentence)):
            yield None, sentence[match.end() :].strip(" ,:") or sentence


def citation_faults(answer: str, facts: Sequence[str], likeness: SentenceSimilarity) -> list[Fault]:
    """Faults of the facts cited: a number that no fact has, a sentence that its fact does not bear, a fact made up."""
    faults = []
    for number, sentence in cited_sentences(answer):
        if number is not None and not 1 <= number <= len(facts):
            faults.append(Fault.of("unknown-fact", words=f"fact {number} of {len(facts)}"))
        elif number is not None and likeness.between(sentence, [facts[number - 1]])[0] < FITS:
            faults.append(Fault.of("unfit-fact", words=sentence))
        elif number is None and max(likeness.between(sentence, list(facts)), default=0.0) < EXISTS:
            faults.append(Fault.of("unknown-fact", words=sentence))
    return faults
