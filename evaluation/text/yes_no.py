"""Yes and no: the word that answers a question, wherever an answer puts it, and answers that echo the question.

"No, ..." is an answer, "No scratch ..." is not; "It isn't." and "We cannot." answer by the verb alone; "There are: ..."
affirms what was asked.
"""

from __future__ import annotations

import re
from functools import cache

from sage_ad.evaluation.text.lexicon import cue_lists
from sage_ad.evaluation.text.normalise import plain, stem, stem_set, stems, word_set
from sage_ad.evaluation.text.sentences import TOKEN, split_sentences

_FOLLOWERS = word_set(
    "it the this there that they i we you a an its these those because since as but and so all both everything "
    "nothing here in on at to one some with due unfortunately sadly"
)
_CERTAIN = word_set("yes true false nope yep yeah affirmative yup")
_EMPHATIC = word_set("sure certainly definitely absolutely surely indeed right")
_LEAD_IN = word_set(
    "answer verdict the my is : - well hm hmm oh , so result conclusion final a clear overall in short "
    "unfortunately sadly i say would statement probably most likely very maybe perhaps definitely certainly "
    "surely presumably to be honest answering question your ( ) rather almost afraid am fear think judgement "
    "judgment assessment it's finding ruling"
)
_AT_END = re.compile(
    r"(?:\b(?:answer|verdict|conclusion|so|hence|therefore|thus|result|say|says|is|overall|be|reads?|short|word|to|remains?)|[:,\-])\s*"
    r"(?:it is|a clear|a plain|simply|[\"'(:]|\s)*\b(yes|no|true|false|affirmative|negative)\b[\s\"'.!)*]*$"
)
_AUXILIARIES = stem_set("be do have can could will would should may might must need shall")
_PRONOUNS = stem_set("it this that they these those we i you one there he she")
_QUANTIFIERS = stem_set("some every no none nothing nobody neither not all both any each everything anything something")
_WHOLES = stem_set("all both every each")
_NEGATIVE = stem_set("not never hardly none nothing nobody no neither")
_ASSENT = stem_set(
    "confirmed required needed necessary recommended due granted given present affirmed expected called correct so"
)
_DISSENT = stem_set("refused denied excluded rejected withheld unnecessary unneeded absent")
_VIEW = stem_set(
    "in my our your his view opinion eyes eye mind see i we honest say would think here , to me for as far can"
)
_FILLERS = stem_set(
    "me them us be do have the a an so say think that any all more at really indeed either unfortunately afraid it "
    "this to of in on and for with as call one i we you would could should can will there such quite just also "
    "still certainly clearly definitely surely , sadly believe than seem rather prefer honest personal happy gladly "
    "presumably probably perhaps maybe guess suppose likely very well no not never hardly none nothing nobody "
    "something anything somewhere anywhere anyone someone"
)


@cache
def _entries() -> list[tuple[tuple[str, ...], bool]]:
    pairs = [(tuple(plain(entry).split()), name == "yes") for name in ("yes", "no") for entry in cue_lists()[name]]
    return sorted(pairs, key=lambda pair: -len(pair[0]))


def _at_start(sentence: str) -> tuple[bool, str] | None:
    sequence = tuple(token.strip() for token in TOKEN.findall(sentence.strip(" \"'*_#>-")))
    skip = 0
    while skip < min(len(sequence), 7) and sequence[skip] in _LEAD_IN:
        skip += 1
    for begin in dict.fromkeys((0, *range(skip, 0, -1))):
        rest = sequence[begin:]
        found = next(((key, value) for key, value in _entries() if rest[: len(key)] == key), None)
        if found is None:
            continue
        key, value = found
        after = rest[len(key)] if len(rest) > len(key) else ""
        if after in {"to", "colour", "color", "copy"} and len(key) == 1:
            continue
        closed = after in {"", ",", ":", "-", "("}
        if (
            closed
            or (key[0] in _EMPHATIC and after in _FOLLOWERS)
            or key[0] in _CERTAIN
            or (len(key) >= 2 and after != "of")
            or (key[0] == "no" and after in _FOLLOWERS)
        ):
            return value, " ".join(rest[: len(key)])
    return None


_LEAD_SEGMENT = re.compile(
    r"^[\s\"'*_#>-]*(?:[a-z0-9'-]+,? ){1,6}?(yes|no|nope|yep|yeah|nay|aye|not)(?=\s*(?:[,.:;!-]|$))"
)
"""A few words that end with a yes or a no before the first stop ("lol no", "Contaminated, no", "Dear, rather not")."""
_AFTER_BUT = re.compile(r"^[^.;:]{3,60}, but (yes|no)\b")
_AGREEING = frozenset({"yes", "yep", "yeah", "aye"})
_ECHOED_QUESTION = re.compile(r"^(?!(?:it|that|there|yes|no|they|this)\b)[^.!?;:,]{1,60}\?\s+(?=\S)", re.IGNORECASE)


def _after_lead(sentence: str) -> tuple[bool, str] | None:
    """The yes or no behind a short lead-in, or behind a disclaimer ("I'm no pharmacist, but yes, ...")."""
    if (found := _LEAD_SEGMENT.search(sentence)) and not re.search(
        r"\b(?:or|if|whether|say|there is)\b", found.group(0)
    ):
        before = sentence[: found.start(1)].split()
        if found.group(1) != "not" or before[-1:] in (["better"], ["rather"], ["not"]):
            return found.group(1) in _AGREEING, sentence[: found.end(1)].strip()
    if found := _AFTER_BUT.search(sentence):
        return found.group(1) == "yes", sentence[: found.end(1)].strip()
    return None


def without_echoed_question(text: str) -> str:
    """The text without a question that it puts to itself first ("First quality? No way, ...")."""
    return _ECHOED_QUESTION.sub("", text, count=1)


def parse_yes_no(text: str) -> tuple[bool | None, str]:
    """The yes or no of an answer, with the words that say it; (None, "") when there is none."""
    sentences = split_sentences(without_echoed_question(text))
    if not sentences:
        return None, ""
    if first := _at_start(sentences[0]):
        return first
    if first := _after_lead(sentences[0]):
        return first
    for sentence in reversed(sentences):
        if match := _AT_END.search(sentence):
            return match.group(1) in {"yes", "true", "affirmative"}, match.group(1)
    for sentence in sentences[1:]:
        if len(sentence.split()) <= 3 and (found := _at_start(sentence)):
            return found
    return None, ""


def _is_negated(question: str) -> bool:
    """Whether a question asks for an absence ("Is there nothing wrong?", "Are there no defects?")."""
    opening = re.split(r"[.?!;]|, (?:and )?if\b|\bthat\b|\bto (?:say|call|claim|doubt)\b", plain(question))[0]
    # "Isn't it defective?" is rhetoric and asks the same as "Is it defective?"; "Is it not defective?" asks for an absence.
    return bool(
        re.search(
            r"\b(?:nothing|no|none|never|nowhere)\b|^\w+ (?:(?!that\b|which\b|who\b)\w+ ){1,5}not\b(?! to\b)", opening
        )
    )


def _elliptic(question: str, asked: set[str], sequence: list[str], words: tuple[str, ...]) -> tuple[bool, str] | None:
    """The yes or no of a clause without a subject that repeats the question ("Won't.", "Rework not required")."""
    kept = [word for word in sequence if word not in _FILLERS]
    whole = bool(_WHOLES & set(sequence)) or bool(set(sequence[:1]) & _AUXILIARIES & asked)
    kept = [word for word in kept if word not in _ASSENT | _DISSENT]
    if (not kept and not whole) or not set(kept) <= asked or len(sequence) > 7:
        return None
    negative = sum(word in _NEGATIVE or word in _DISSENT for word in sequence) % 2 == 1
    # "No objections?" - "No objections." agrees.
    lacking = stems(question)[:1] != () and stems(question)[0] in _NEGATIVE
    return (not negative) != lacking, " ".join(words)


_SOLE = {
    True: stem_set(
        "somewhere something someone somebody some both all everything everywhere many several plenty one two three "
        "four any"
    ),
    False: stem_set("nowhere nothing nobody none neither zero nil never"),
}


def _sole(question: str, sequence: list[str], words: tuple[str, ...]) -> tuple[bool, str] | None:
    """The yes or no of a quantifier that stands alone ("Nobody."); "nothing" agrees to "is there nothing?"."""
    kept = [word for word in sequence if word != ","]
    if not 1 <= len(kept) <= 2 or (len(kept) == 2 and kept[0] not in {"not", "there"}):
        return None
    for value, known in _SOLE.items():
        if kept[-1] in known:
            said = value if len(kept) == 1 else not value
            return said != _is_negated(question), " ".join(words)
    return None


def echo_yes_no(question: str, words: tuple[str, ...]) -> tuple[bool, str] | None:
    """The yes or no of a clause that only repeats the question's verb ("It isn't.", "Some area does.", "We cannot say that.").

    Args:
        question: the question as asked.
        words: the words of the answer's first clause.
    """
    asked = set(stems(question.replace("-", " "))) | set(stems(question))
    sequence = [stem(word) for word in words]
    if found := _sole(question, sequence, words):
        return found
    position = next((index for index, word in enumerate(sequence[:9]) if word in _AUXILIARIES), None)
    if position is None or position == 0:
        return _elliptic(question, asked, sequence, words)
    known = asked | _PRONOUNS | _QUANTIFIERS | _NEGATIVE | _VIEW | {"the", "of", "a", "an", ","}
    if not set(sequence[:position]) <= known:
        return None
    rest = sequence[position + 1 :]
    if set(rest) - asked - _FILLERS - _ASSENT - _VIEW:
        return None
    # "It cannot be said that it doesn't" denies twice and affirms.
    negative = sum(word in _NEGATIVE for word in sequence) % 2 == 1
    return (not negative) != _is_negated(question), " ".join(words)
