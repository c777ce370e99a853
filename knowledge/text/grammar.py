"""What a line is by its grammar, told by a few words of English: a sentence rather than a title; an order to somebody.

Word lists and no parser: a verb that is a noun as often ("wear", "cut", "check") counts only before a word that a noun
would not have after it.
"""

from __future__ import annotations

import re

_FINITE = re.compile(
    r"\b(?:is|are|was|were|has|have|had|does|did|must|should|shall|will|would|could|might|cannot|"
    r"(?:can|may) (?:be|not|only|also|[a-z]+ly)|shows|appears|occurs|arises|happens|becomes|comes|goes|lies|stays|makes|means|"
    r"gives|lets|leads|contains|depends|remains|reduces|prevents|indicates|requires|destroys)\b(?!['’])",
    re.I,
)
_ASKED = re.compile(r"\b(?:what|how|when|where|why|which|who|whose|that|if|whether)\b", re.I)
"""Before a verb: "What is a chip?" and "Faults that are allowed" are titles."""

_BEFORE = (
    r"^(?:(?:if|when|before|after|to|in case|for|with|until|once|unless|where)\b[^.;:]{3,100}?, (?:then )?|"
    r"(?:first|then|next|finally|also|otherwise|therefore|please),? )?"
)
_DETERMINER = r"(?:the|an?|all|each|every|any|both|it|them|this|these|those|your)"
_AFTER_VERB = (
    rf"(?:{_DETERMINER}|that|no|only|its|one|two|up|down|off|out|away|back|over|from|with|without|in|into|on|onto|at|to|for|by|"
    r"under|against|between|along|across|through|near|immediately|carefully|gently|slowly|again|twice|once|before|after|"
    r"until|if|when|\d+)"
)
# Verbs only, then those that are nouns or adjectives too, then those that are names of defects or of machines.
_ORDERED = re.compile(
    _BEFORE + r"(?:(?:always|never)\b|(?:do not|don['’]t) (?!confuse|mistake)|make sure\b|take care\b|"
    r"(?:ensure|avoid|remove|inspect|examine|verify|compare|replace|rinse|adjust|apply|attach|discard|keep|take|put|make|lay|"
    r"bring|send|inform|notify|choose|confirm|follow|observe|tighten|loosen|lubricate|degrease|disconnect|immerse|rotate|"
    r"illuminate|determine|assess|evaluate|repeat|consult|reject|rework|downgrade|quarantine) [a-z\d]|"
    r"(?:accept|check|test|store|use|hold|tilt|turn|clean|wipe|place|set|scrap|handle|report|record|count|measure|look|scan|"
    r"tap|weigh|switch|wash|dry|heat|cool|grind|polish|sand|trim|stack|pack|lift|push|pull|move|start|stop|open|close|fill|"
    r"empty|feed|load|unload|pour|mix|stir|sweep|brush|lower|raise|reduce|increase|return|repair|release|protect|sort|wait|"
    rf"block|separate|slide|insert|select|view|re-?melt|run) {_AFTER_VERB}\b|"
    rf"(?:wear|cut|mark|drop|fold|step|press|cover|seal|coat|paint|dip|stamp|label|sample) {_DETERMINER}\b|"
    r"wear (?:\w+ ){0,2}(?:gloves|goggles|glasses|masks?|protection|shoes|aprons?)\b)",
    re.I,
)
_DUTY = re.compile(  # of the first clause: "..., so artwork must be scaled" tells what a cause leads to
    r"^[^,;:]*\b(?:operators?|workers?|inspectors?|staff|personnel|employees?|everybody|everyone|nobody|you|we) (?:\w+ )?"
    r"(?:must|shall|should|has to|have to|may not|is to|are to)\b|"
    r"^[^,;:]*\b(?:must|should|shall|has to|have to|is to|are to) (?:(?:not|never|always|only|first|then) )?be (?:\w+ly )?"
    r"(?!expected|tolerated|accepted|regarded|counted|needed)"
    r"(?:\w{2,}ed|put|set|cut|kept|held|worn|sent|laid|taken|done|made)\b",
    re.I,
)
_DISPOSITION = re.compile(
    r"\b(?:scrap|reject|discard|accept|re-?work|repair|downgrade|quarantine|block|return|re-?melt|second choice|"
    r"(?:sort|set|put)\w* (?:it |them )?(?:out|aside)|use as is)",
    re.I,
)


def is_sentence(line: str) -> bool:
    """Whether a line without a full stop says something, as "All rim chips are scrapped" does, rather than name it."""
    verb = _FINITE.search(line)
    return bool(verb and not _ASKED.search(line[: verb.start()])) or bool(_ORDERED.search(line))


def gives_order(text: str) -> bool:
    """Whether a sentence tells somebody what to do ("Wear gloves", "Liners should be stored upside down")."""
    return bool(_ORDERED.search(text) or _DUTY.search(text))


def tells_disposition(text: str) -> bool:
    """Whether a sentence names what becomes of a part: scrap, rework, second choice."""
    return bool(_DISPOSITION.search(text))
