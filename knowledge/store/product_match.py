"""Finding the pack of a product by the name that somebody types: exactly, in spite of typing errors, or by similarity.

A name that is exactly (or but for a typing error) one of a pack's names is that product. A longer text that ends in a
name of several words, or a question that mentions a name, means that product. Any other name goes to the pack with the
most similar name, if it is similar enough, nearer than things that no pack serves, and ahead of the next pack; a word of
a process or material ("anodised") speaks for the pack that has it as a hint.
Nothing is matched in silence: two packs that are equally good are both named, and an unknown name is said to be unknown.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sage_ad.knowledge.text.resources import resource

if TYPE_CHECKING:
    import numpy as np

    from sage_ad.knowledge.store.packs import Pack

Embed = Callable[[Sequence[str]], "np.ndarray"]
How = Literal["name", "synonym", "domain", "spelling", "mentioned", "similar", "ambiguous", "unknown"]

MAY = re.compile(r"\bcan (?=(?:i|we|you|it|this|that|they|these|the|one|be|still)\b)", re.IGNORECASE)
"""The verb in a question ("Can I ship it?"), which is no drink can."""

WORDS_WEIGHT = 0.4
"""Weight of shared words in the similarity of two names; the cosine of their embeddings has the rest."""
HINT = 0.2
"""What a hint of a pack ("anodised") adds to the similarity of its names."""
OTHER_THINGS_WEIGHT = 0.9
"""Share of the similarity to things that no pack serves which is taken off."""
SIMILAR_FROM = 0.24
"""Least similarity, after that, of a name that is matched. See benchmarks/pack_lookup.py."""
LEAD = 0.02
"""By how much the best pack must be ahead of the next; with less, both are named and neither is taken."""

CLOSE_PACKS = 6
"""Packs whose names are all compared; with more, no name of benchmarks/pack_lookup.py is matched otherwise."""


@dataclass(frozen=True)
class DomainMatch:
    """Which pack serves a product.

    Attributes:
        domain: name of the pack; the general one when none knows the product, or several know it equally well.
        product: the pack's name for the product; None when the text names none of the pack's products.
        how: "name", "synonym", "domain" (the text names the pack), "spelling" (a name but for a typing error),
            "mentioned" (a longer text names a product), "similar", "ambiguous" (several packs) or "unknown".
        note: one sentence for the user unless the text is exactly a name.
        runner_up: the next best pack; None when no other came near.
        similarity: of a match by similarity, 0 to 1, comparable with `SIMILAR_FROM`; else None.
    """

    domain: str
    product: str | None
    how: How
    note: str = ""
    runner_up: str | None = None
    similarity: float | None = None


@dataclass(frozen=True)
class _Name:
    domain: str
    product: str | None
    text: str
    how: How


class ProductNames:
    """The names of all packs, made ready for `match`.

    Args:
        packs: the packs by name.
        general: name of the pack for everything else; its names are not matched.
        own: packs of the user's, which win over shipped ones that claim the same name.
    """

    def __init__(self, packs: Mapping[str, Pack], general: str, own: Collection[str] = ()) -> None:
        self.general = general
        self._own = frozenset(own)
        self._names: list[_Name] = []
        for pack in packs.values():
            if pack.name == general:
                continue
            self._names.append(_Name(pack.name, None, pack.name, "domain"))
            for term in pack.products:
                for position, text in enumerate(term.names):
                    self._names.append(_Name(pack.name, term.name, text, "synonym" if position else "name"))
        self._words = [tuple(plain_words(name.text).split()) for name in self._names]
        self._by_words: dict[tuple[str, ...], list[_Name]] = defaultdict(list)
        self._by_key: dict[str, list[_Name]] = defaultdict(list)
        self._with: dict[str, list[int]] = defaultdict(list)
        packs_with: dict[str, set[str]] = defaultdict(set)
        for number, (name, words) in enumerate(zip(self._names, self._words, strict=True)):
            self._by_words[words].append(name)
            self._by_key[name_key(name.text)].append(name)
            for word in set(words):
                self._with[word].append(number)
                packs_with[word].add(name.domain)
        domains = len({name.domain for name in self._names})
        self._unknown_weight = math.log(1 + domains)
        self._weight = {word: math.log(1 + domains / len(found)) for word, found in packs_with.items()}
        self._longest = max((len(words) for words in self._words), default=0)
        self._near: dict[str, dict[str, float]] = {}
        self._vectors: dict[str | None, tuple[list[_Name], np.ndarray]] = {}
        self._things: np.ndarray | None = None
        self._hints: dict[str, set[str]] = defaultdict(set)
        for pack in packs.values():
            for hint in pack.hints:
                self._hints[plain_words(hint)].add(pack.name)

    def match(self, text: str, embed: Embed | None = None, *, question: bool = False) -> DomainMatch:
        """The pack and product that a text names.

        Args:
            text: a product name ("solar cell") or a data set's category ("solar_cell_mono").
            question: the text is no name but may mention one; so is a text with a question mark.
            embed: function that gives the vectors of texts, of unit length, (n, dimensions); None matches by words only.
        """
        question = question or "?" in text
        words = tuple(plain_words(MAY.sub(" ", text) if question else text).split())
        if not words:
            return DomainMatch(self.general, None, "unknown", self._say("No product is named"))
        said = " ".join(text.split())[:60]
        if found := self._exactly(words):
            return self._take(found, None, said)
        # A question is made of ordinary words: "below" is no mistyped "bellows".
        corrected = words if question else tuple(self._corrected(word) for word in words)
        if corrected != words and (found := self._exactly(corrected)):
            return self._take(found, "spelling", said)
        if found := self._mentioned(corrected, question):
            return self._take(found, "mentioned", said)
        if not question:
            naming = tuple(self._corrected(word) for word in _naming_part(text))
            if naming and (found := self._exactly(naming)):
                return self._take(found, "mentioned", said)
            if embed is not None and self._names:
                return self._similar(text if corrected == words else " ".join(corrected), corrected, said, embed)
        return DomainMatch(self.general, None, "unknown", self._say(f"No pack knows the product {said!r}"))

    def _exactly(self, words: tuple[str, ...]) -> list[_Name]:
        """Names of just these words; a number at the end of the text ("pcb3", "fabric 02") may count the parts."""
        if words in self._by_words:
            return self._by_words[words]
        if found := self._by_key.get(name_key(" ".join(words))):
            return found
        shorter = (*words[:-1], *plain_words(words[-1].rstrip("0123456789")).split())
        return self._by_words.get(shorter, []) if shorter else []

    def _take(self, found: Sequence[_Name], how: How | None, said: str) -> DomainMatch:
        """The match when these names fit equally well; without `how` the text is exactly these names."""
        ranked = sorted(found, key=lambda name: (name.domain not in self._own, _RANK[name.how]))
        best = ranked[0]
        known = said if how is None else best.text
        how = how or best.how
        rivals = sorted({name.domain for name in ranked if _RANK[name.how] == _RANK[best.how]} - {best.domain})
        others = sorted({name.domain for name in ranked} - {best.domain})
        if rivals and best.domain not in self._own:
            claim = f"The packs {', '.join(sorted([best.domain, *rivals]))} know the name {known!r}"
            return DomainMatch(self.general, None, "ambiguous", self._say(claim), rivals[0])
        note = ""
        if others:
            note = f"The packs {', '.join([best.domain, *others])} know the name {known!r}: {best.domain} is used."
        elif how in ("spelling", "mentioned"):
            note = f"{said!r} is taken for {best.text!r} of the pack {best.domain}."
        return DomainMatch(best.domain, best.product, how, note, others[0] if others else None)

    def _say(self, why: str) -> str:
        return f"{why}: facts of the {self.general} pack are used; name the pack (domain) that serves it."

    def _mentioned(self, words: tuple[str, ...], question: bool) -> list[_Name]:
        """The longest names that a question mentions, or of several words in which a longer text ends.

        Words that many packs use ("wall") mention no product of a shipped pack in a question.
        A text that also has a name of another pack in it ("nickel plating of a valve body") is left to similarity.
        """
        found: dict[int, list[tuple[int, list[_Name]]]] = defaultdict(list)
        for length in range(min(self._longest, len(words)), 0 if question else 1, -1):
            for start in range(len(words) - length + 1):
                names = [
                    name
                    for name in self._by_words.get(words[start : start + length], [])
                    if name.product is not None
                    and not (length == 1 and words[start] in _ordinary() and name.domain not in self._own)
                ]
                if names:
                    found[length].append((start + length, names))
        if question:
            return [name for _, names in found[max(found)] for name in names] if found else []
        ends = [names for entries in found.values() for end, names in entries if end == len(words)]
        if ends and (imaging := set(words) & _imaging()) and not imaging & set(plain_words(ends[0][0].text).split()):
            return []  # "x-ray of a wheel hub" may be of a pack of its own
        domains = {name.domain for entries in found.values() for _, names in entries for name in names}
        if (hinted := self._hinted(words)) and not hinted & domains:
            return []  # "galvanised fence post"
        return ends[0] if ends and len(domains) == 1 else []

    # -- similarity --------------------------------------------------------------------------------------------------

    def _similar(self, text: str, words: tuple[str, ...], said: str, embed: Embed) -> DomainMatch:
        import numpy as np

        vector = embed([text])[0]
        shared = self._shared(words)

        def score(domain: str, cosine: float) -> float:
            share = shared[domain][0] if domain in shared else 0.0
            return WORDS_WEIGHT * share + (1 - WORDS_WEIGHT) * cosine + (HINT if domain in hinted else 0.0)

        hinted = self._hinted(words)
        # Embedding thousands of names takes half a minute: one name of each product says which packs are worth it.
        nearest = {domain: score(domain, cosine) for domain, (cosine, _) in self._closest(None, vector, embed).items()}
        if self._things is None:
            self._things = embed(resource("product_words.yaml")["things"])
        near = sorted(nearest, key=lambda domain: -nearest[domain])[:CLOSE_PACKS]
        best = {domain: self._closest(domain, vector, embed)[domain] for domain in near}
        scores = {domain: score(domain, cosine) for domain, (cosine, _) in best.items()}
        off = OTHER_THINGS_WEIGHT * float(np.max(self._things @ vector))
        first, *rest = sorted(scores, key=lambda domain: -scores[domain])
        second = rest[0] if rest else None
        similarity = round(scores[first] - off, 3)
        if similarity < SIMILAR_FROM:
            note = f"No pack knows the product {said!r} (the nearest, {first}, has similarity {similarity:.2f} of {SIMILAR_FROM})"
            return DomainMatch(self.general, None, "unknown", self._say(note), first, similarity)
        if second is not None and scores[first] - scores[second] < LEAD:
            note = f"The packs {first} and {second} fit {said!r} equally well"
            return DomainMatch(self.general, None, "ambiguous", self._say(note), second, similarity)
        name = shared[first][1] if first in shared and shared[first][0] > best[first][0] else best[first][1]
        note = f"{said!r} is like {name.text!r} of the pack {first} (similarity {similarity:.2f}"
        note += f"; next: {second}); name another pack (domain) if this is wrong." if second else ")."
        # The facts and limits of another part number are not this one's.
        own = set(re.findall(r"\d+", text))
        other = set(re.findall(r"\d+", name.text)) - own and (own or re.search(r"\d", name.product or ""))
        return DomainMatch(first, None if other else name.product, "similar", note, second, similarity)

    def _closest(self, domain: str | None, vector: np.ndarray, embed: Embed) -> dict[str, tuple[float, _Name]]:
        """The nearest name in Latin letters of a pack, or of each pack by one name a product (None), and its cosine."""
        if domain not in self._vectors:
            names = [
                name for name in self._names if domain in (None, name.domain) and name.product and _is_latin(name.text)
            ]
            if domain is None:
                names = list({(name.domain, name.product): name for name in reversed(names)}.values())
            self._vectors[domain] = names, embed([name.text for name in names])
        names, vectors = self._vectors[domain]
        best: dict[str, tuple[float, _Name]] = {}
        for name, cosine in zip(names, (vectors @ vector).tolist(), strict=True):
            if name.domain not in best or cosine > best[name.domain][0]:
                best[name.domain] = cosine, name
        return best

    def _hinted(self, words: Sequence[str]) -> set[str]:
        """The packs that have a hint among these words."""
        said = f" {' '.join(words)} "
        return {domain for hint, domains in self._hints.items() if hint and f" {hint} " in said for domain in domains}

    def _shared(self, words: Sequence[str]) -> dict[str, tuple[float, _Name]]:
        """By pack, the name that shares most words with a text: the share, 0 to 1, and the name.

        It is the geometric mean of how much of the name is in the text and of the text in the name; rare words count
        more, and those that only describe ("black", "12 mm") count nothing in the text.
        """
        hits = {word: self._near_words(word) for word in set(words)}
        telling = _telling(words)
        weights = {
            word: max(
                (self._weight[other] for other, near in hits[word].items() if near >= 0.75),
                default=self._unknown_weight,
            )
            for word in telling
        }
        total = sum(weights.values())
        found: dict[str, tuple[float, _Name]] = {}
        for row in {row for near in hits.values() for other in near for row in self._with[other]}:
            name, own = self._names[row], self._words[row]
            covered = sum(self._weight[word] * max(near.get(word, 0.0) for near in hits.values()) for word in own)
            named = sum(weights[word] * max(hits[word].get(other, 0.0) for other in own) for word in telling)
            share = math.sqrt(covered / sum(self._weight[word] for word in own) * named / total)
            if name.product is not None and share > found.get(name.domain, (0.0,))[0]:
                found[name.domain] = share, name
        return found

    def _near_words(self, word: str) -> dict[str, float]:
        """Words of names that a word may stand for, with how sure that is, 0 to 1."""
        if word not in self._near:
            known = word in self._weight or not {word, f"{word}s"}.isdisjoint(_english())
            near = {other: nearness(word, other, known) for other in self._weight}
            self._near[word] = {other: value for other, value in near.items() if value}
        return self._near[word]

    def _corrected(self, word: str) -> str:
        """The word of a name for which a word is a typing error, or the word itself, as is any English one."""
        if word in self._weight or word in _english():
            return word
        near = [other for other, value in self._near_words(word).items() if value >= 0.75 and is_typo(word, other)]
        return min(near, key=lambda other: (_edits(word, other), -len(self._with[other]), other), default=word)


_RANK: dict[How, int] = {"name": 0, "synonym": 0, "domain": 1}
"""A product's own name comes before the name of a pack."""


def _is_latin(text: str) -> bool:
    return text.isprintable() and all(ord(char) < 0x2E80 for char in text)


_PART = re.compile(r"[,;:(/]|\s[-–]\s")


def _naming_part(text: str) -> list[str]:
    """The words of a text that name the product: those before a comma, a bracket, a "with", or a number that follows."""
    naming: list[str] = []
    for word in plain_words(_PART.split(text.strip())[0]).split():
        if naming and (_NUMBER.match(word) or word in resource("product_words.yaml")["joining"].split()):
            break
        naming.append(word)
    return naming


def _telling(words: Iterable[str]) -> list[str]:
    """The words that say what a product is: no numbers, sizes, colours and views, unless there is nothing else."""
    words = list(dict.fromkeys(words))
    return [word for word in words if word not in _describing() and not _NUMBER.match(word)] or words


_NUMBER = re.compile(r"\d.*|m\d+|[a-z]{1,4}\d+[a-z\d]*")
"""A number, a size ("12mm", "m8") or a code ("en10025")."""


@functools.cache
def _describing() -> frozenset[str]:
    words = resource("product_words.yaml")
    return frozenset(plain_words(f"{words['describing']} {words['joining']}").split())


@functools.cache
def _english() -> frozenset[str]:
    """Words that MiniLM reads in one piece, most of them English; of a name that is no such word a typing error may be told."""
    from sage_ad.vlm.weights.embedded import minilm_folder

    return frozenset((minilm_folder() / "vocab.txt").read_text(encoding="utf-8").split())


@functools.cache
def _imaging() -> frozenset[str]:
    return frozenset(plain_words(resource("product_words.yaml")["imaging"]).split())


@functools.cache
def _ordinary() -> frozenset[str]:
    return frozenset(map(plain_words, resource("product_words.yaml")["ordinary"].split()))


def nearness(word: str, other: str, known: bool = False) -> float:
    """How sure it is that a typed word means a word of a name: 1 the same, less for typing errors and parts of compounds.

    Args:
        word: what was typed; `known` says that it is itself a word of some name, and so no typing error.
        other: the word of a name.
    """
    if word == other:
        return 1.0
    if any(char.isdigit() for char in word + other):
        return 0.0
    shorter = min(len(word), len(other))
    if not known and is_typo(word, other):
        return 0.9 if shorter >= 6 or len(word) == len(other) else 0.75
    if shorter >= 4 and word.endswith(other) and len(word) - len(other) >= 3:  # Rillenkugellager, Kugellager
        return 0.8 if len(other) >= 5 else 0.6
    if shorter >= 5 and other.endswith(word):
        return 0.6
    return 0.5 if shorter >= 5 and (word.startswith(other) or other.startswith(word)) else 0.0


def is_typo(word: str, other: str) -> bool:
    """Whether a word may be another one mistyped: two letters swapped, one wrong, missing or too many, two in long ones.

    The first letter is right, as it nearly always is; in words of four letters only a swap counts, in shorter ones nothing.
    """
    if word[:1] != other[:1] or abs(len(word) - len(other)) > 2 or word == other:
        return False
    shorter = min(len(word), len(other))
    distance = _edits(word, other)
    if shorter < 5:
        return shorter == 4 and distance == 1 and sorted(word) == sorted(other)
    return distance <= (2 if shorter >= 9 else 1)


def _edits(one: str, other: str) -> int:
    """Edit distance with swaps of neighbours (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        row = [i]
        for j, b in enumerate(other, start=1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


@functools.lru_cache(maxsize=20_000)
def plain_words(text: str) -> str:
    """A name without case, marks, accents and plurals: "Solar_Cells" is "solar cell", "Bürste" "burste"; digits count."""
    if not text.isascii():
        text = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    return " ".join(_singular(word) for word in re.findall(r"[^\W_]+", text.casefold()))


def name_key(text: str) -> str:
    """What is the same for every way to write a name: "MG-20", "mg 20" and "MG20"; "MG-2 0" is another number."""
    return re.sub(r"(?<!\d) | (?!\d)", "", plain_words(text))


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith("ie"):
        return word[:-2] + "y"  # cookie, cookies
    if len(word) > 4 and word.endswith(("ches", "shes", "xes", "sses", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
