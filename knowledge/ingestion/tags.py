"""Which defects and products a sentence is about, in the names of its pack: by name or synonym, in the sentence or above it.

An inspection cites the facts of the defect that it names and of the product before it, so a fact of a user's own manual
is of use only with both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from sage_ad.knowledge.store.packs import Pack, Term
from sage_ad.knowledge.text.stemming import stem

Tags = tuple[tuple[str, ...], tuple[str, ...]]
"""Names of products, and of defects."""
_WORD = re.compile(r"[^\W\d_]+|\d+")
_COMPARED = re.compile(
    r"\b(?:unlike|rather than|instead of|(?:confused?|mistaken?|taken?) (?:for|with)|no|not(?! confuse)|without|"
    r"free (?:of|from)|differs? from)"
    r" (?:an? |the |any )?[\w-]+(?: (?:or|nor) [\w-]+)?",
    re.I,
)
"""What a sentence names only to say that it is something else, or is absent."""
_ORDERED = re.compile(
    r"(?:^|[.;:] |\b(?:to|must|should|shall|can|please|and) )(?:check|stop|mark|cut|score|print)\b(?=\s)|\b(?:is|are) cut\b",
    re.I,
)
"""What to do ("check the rim"), which is no defect of that name."""

_CONDITION = re.compile(
    r"\s*[<>≤≥=(),:]|\s+(?=\d)|\s+(?:in|on|at|of|over|under|through|with|without|from|near|along|across|between|within|outside|"
    r"inside|above|below|up|more|less|not|longer|shorter|larger|smaller|bigger|deeper|wider|greater)\b",
    re.I,
)
"""Where a condition begins that a cell puts on the name before it."""
_LISTED = re.compile(r"\s*[/+&]\s*|\s+(?:and|or|und|oder)\s+", re.I)


def tagger(pack: Pack) -> Callable[[str, Sequence[str]], Tags]:
    """Makes the function that gives the tags of a sentence and the headings above it, the outermost first.

    The nearest of sentence and headings that names a defect tells the defect; likewise for products. What they name only in
    comparison ("unlike gas pores", "Not to be confused with dirt") counts last. A longer name wins over one within it ("oil
    stain" is no "stain" beside it). Of `pack`, `defects` must hold the names of its cards.
    """
    products, defects = _names(pack.products), _names(pack.defects)

    def tags(text: str, headings: Sequence[str]) -> Tags:
        text = _ORDERED.sub(" ", text)
        texts = [*(_COMPARED.sub(" ", part) for part in (text, *reversed(headings))), *reversed(headings), text]
        return _nearest(texts, products), _nearest(texts, defects)

    return tags


def with_taught(pack: Pack) -> Pack:
    """The pack with the defects and products that were taught by showing and have no card."""
    from sage_ad.knowledge.looks.pictures import looks_folder, read_looks

    known = {name.casefold() for term in (*pack.products, *pack.defects) for name in term.names}
    looks = read_looks(looks_folder(pack.name))
    taught = {
        "products": dict.fromkeys(look.product for look in looks),
        "defects": dict.fromkeys(look.defect for look in looks if look.defect),
    }
    more = {kind: [Term(name=name) for name in names if name.casefold() not in known] for kind, names in taught.items()}
    return pack.model_copy(
        update={"products": (*pack.products, *more["products"]), "defects": (*pack.defects, *more["defects"])}
    )


def canonical(names: Iterable[str], terms: Iterable[Term]) -> tuple[str, ...]:
    """Names as the pack has them; one that it does not know stays as it is."""
    known = {_stems(name): term.name for term in terms for name in term.names}
    return tuple(dict.fromkeys(known.get(_stems(name), name) for name in names))


def filed_under(cells: Iterable[str], terms: Iterable[Term]) -> tuple[str, ...]:
    """Names of a table's column as the pack has them: those that a cell ends in, before its condition, or the cell itself.

    "Hairline crack > 2 mm" and "crack through the edge" are cracks, "fray / chip" is both, a "crack detector" is neither.
    """
    terms = tuple(terms)
    known = _names(terms)
    found: list[str] = []
    for cell in cells:
        parts = [_stems(part) for part in _LISTED.split(_CONDITION.split(cell)[0])]
        ends = [next((known[part[n:]] for n in range(len(part)) if part[n:] in known), None) for part in parts]
        exact = known.get(_stems(cell))
        found += [exact] if exact else [name for name in ends if name] or [cell]
    return tuple(dict.fromkeys(found))


def _stems(text: str) -> tuple[str, ...]:
    return tuple(stem(word) for word in _WORD.findall(text.casefold()))


def _names(terms: Iterable[Term]) -> dict[tuple[str, ...], str]:
    """Name by the stems of each of its names."""
    return {_stems(name): term.name for term in reversed(tuple(terms)) for name in reversed(term.names)}


def _nearest(texts: Iterable[str], names: dict[tuple[str, ...], str]) -> tuple[str, ...]:
    return next((found for text in texts if (found := _found(_stems(text), names))), ())


def _found(words: Sequence[str], names: dict[tuple[str, ...], str]) -> tuple[str, ...]:
    longest = max(map(len, names), default=0)
    found: dict[str, None] = {}
    start = 0
    while start < len(words):
        sizes = range(min(longest, len(words) - start), 0, -1)
        size = next((size for size in sizes if tuple(words[start : start + size]) in names), 0)
        if size:
            found[names[tuple(words[start : start + size])]] = None
        start += size or 1
    return tuple(found)
