"""What may become a fact: the checks that every candidate passes before it is stored.

In this order: text that gives orders to a model, text that is no fact, text of another domain, contradictions with what
is known, near-duplicates. Nothing here writes; the caller stores what is "new", merges the sources of what is a
"duplicate", and stores a "contradiction" as proposed with a flag, never merged. Everything else is refused with its
reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sage_ad.knowledge.facts import MAX_TEXT, STATUSES, Fact, normalise_text
from sage_ad.knowledge.ingestion.extraction import WORTH_KEEPING, boilerplate_reason
from sage_ad.knowledge.ingestion.written import written_reason
from sage_ad.knowledge.text.classifier import FactClassifier
from sage_ad.knowledge.text.contradictions import contradiction, find_flips, profile, replaced_words
from sage_ad.knowledge.text.instructions import instruction_reason, quote_fact

if TYPE_CHECKING:
    import numpy as np

    from sage_ad.knowledge.store.fact_store import FactStore

Outcome = Literal["new", "duplicate", "contradiction", "off-domain", "instruction", "not-a-fact"]

NEARLY_SAME = 0.92
"""Cosine similarity from which two sentences are duplicates; no pair of different facts in the packs reaches 0.85."""

SAME_WORDS = (0.80, 0.45)
"""Also duplicates: this similarity together with this share of common content words (Jaccard)."""

UNRELATED = 0.30
"""Similarity to a domain below which a sentence is refused; no fact of a pack falls below it (left out in turn)."""

IN_CONTEXT = (0.45, 0.20)
"""In a file with a sentence this close to the domain, the others are refused only below the second."""

UNRELATED_TO_ALL = 0.25
"""The same against all packs together, for a young domain that has too little to compare with."""

FOREIGN = (0.45, 0.15)
"""Refused too: less similar than the first to its own domain and by the second less than to another one.

Of the shipped facts, each left out in turn, 1.1 % would be refused in their own pack and 72 % in another one."""

ENOUGH_FACTS = 20
"""Facts that a domain must have before it is compared with others."""

_CONTRADICTION_FROM = 0.40
_NEIGHBOURS = 15
_IN_MEMORY = 20_000  # facts of a domain that are compared directly; beyond, the store's index finds the neighbours

__all__ = [
    "CheckedFact",
    "DomainChecker",
    "Outcome",
    "check_facts",
    "contradiction",
    "instruction_reason",
    "near_duplicate",
    "quote_fact",
]


@dataclass(frozen=True)
class CheckedFact:
    """A candidate and what the checks say.

    Attributes:
        fact: the candidate.
        outcome: "new", "duplicate", "contradiction", "off-domain", "instruction" or "not-a-fact".
        reason: one sentence for people; empty for "new".
        other: the fact that it repeats or contradicts (stored, or an earlier candidate).
    """

    fact: Fact
    outcome: Outcome
    reason: str = ""
    other: Fact | None = None


def check_facts(candidates: Sequence[Fact], store: FactStore, *, judge: bool = True) -> list[CheckedFact]:
    """Checks candidates against the store and against one another.

    Args:
        candidates: facts that are not stored yet, of any domains.
        store: what is known.
        judge: whether facts that a model wrote must also pass `written_reason` and the fact-worthiness classifier (what
            `extract_offline` kept has passed the latter already).

    Returns:
        One result for each candidate, in order.
    """
    vectors = store.embed(candidates)
    checkers = {domain: DomainChecker(store, domain) for domain in sorted({fact.domain for fact in candidates})}
    unworthy = _unworthy(candidates, vectors, store) if judge else {}
    results: dict[int, CheckedFact] = {}
    for position, fact in enumerate(candidates):
        if reason := instruction_reason(fact.text):
            results[position] = CheckedFact(fact, "instruction", f"Reads like an order to a model: {reason}.")
        elif reason := boilerplate_reason(fact.text, stated=True) or unworthy.get(position):
            results[position] = CheckedFact(fact, "not-a-fact", f"Not kept, because it {reason}.")
    for domain, checker in checkers.items():
        rows = [row for row, fact in enumerate(candidates) if fact.domain == domain and row not in results]
        checked = checker.check([candidates[row] for row in rows], vectors[rows])
        results.update(zip(rows, checked, strict=True))
    return [results[position] for position in range(len(candidates))]


def _unworthy(candidates: Sequence[Fact], vectors: np.ndarray, store: FactStore) -> dict[int, str]:
    """Reasons, by position, why sentences that a model wrote are no facts."""
    rows = [row for row, fact in enumerate(candidates) if any(source.model for source in fact.sources)]
    if not rows:
        return {}
    classifier = FactClassifier.fitted(StoreEmbedder(store))
    judgements = classifier.judge([candidates[row].text for row in rows], vectors[rows])
    reasons = {}
    for row, judgement in zip(rows, judgements, strict=True):
        if reason := written_reason(candidates[row].text):
            reasons[row] = reason
        elif judgement.worth < WORTH_KEEPING:
            reasons[row] = f"does not read like a fact about a product (probability {judgement.worth:.2f})"
    return reasons


class StoreEmbedder:
    """The store's embedder, with its cache on disk, for whoever has sentences rather than facts.

    Attributes:
        name: tells embedding models apart by what they answer, since a store need not say which one it uses.
        dimensions: length of a vector.
    """

    def __init__(self, store: FactStore) -> None:
        self.store = store
        probe = self.encode(["A crack appears as a thin dark line."])
        self.name = hashlib.sha256((probe.round(2) + 0.0).tobytes()).hexdigest()[:16]
        self.dimensions = probe.shape[1]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of sentences, (n, dimensions) float32, unit length."""
        return self.store.embed([Fact(text=text[:MAX_TEXT], domain="general", kind="appearance") for text in texts])


@dataclass
class _Neighbour:
    fact: Fact
    similarity: float


@dataclass
class DomainChecker:
    """Compares candidates with all that is known in one domain; grows with each candidate that it lets pass.

    Args:
        store: what is known.
        domain: the domain to compare with.
    """

    store: FactStore
    domain: str
    _facts: list[Fact] = field(init=False)
    _vectors: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self._embedder = StoreEmbedder(self.store)
        counts = {info.name: sum(info.counts.values()) for info in self.store.domains()}
        self._large = counts.get(self.domain, 0) > _IN_MEMORY
        known = self.domain in counts
        self._facts = [] if self._large or not known else self.store.facts(self.domain)
        self._vectors = self.store.embed(self._facts)
        self._size = counts.get(self.domain, 0)

    def check(self, facts: Sequence[Fact], vectors: np.ndarray) -> list[CheckedFact]:
        """Results for candidates of this domain that read like facts, in order.

        Args:
            facts: the candidates.
            vectors: their embeddings (n, dimensions).
        """
        foreign = self._off_domain(facts, vectors)
        results = []
        batch = _Batch()
        for row, fact in enumerate(facts):
            if reason := foreign[row]:
                results.append(CheckedFact(fact, "off-domain", reason))
                continue
            neighbours = [*self._nearest(fact, vectors[row]), *batch.nearest(vectors[row])]
            result = self._compare(fact, sorted(neighbours, key=lambda near: -near.similarity))
            results.append(result)
            if result.outcome in {"new", "contradiction"}:
                batch.add(fact, vectors[row])
        return results

    def _compare(self, fact: Fact, neighbours: Sequence[_Neighbour]) -> CheckedFact:
        same = next(
            (near.fact for near in neighbours if normalise_text(near.fact.text) == normalise_text(fact.text)), None
        )
        if same is not None:
            return CheckedFact(fact, "duplicate", "The same sentence is known already.", same)
        comparable = [near for near in neighbours if _about_the_same(fact, near.fact)]
        for near in comparable:
            # What an expert rejected may well be contradicted.
            if near.similarity < _CONTRADICTION_FROM or near.fact.status == "rejected":
                continue
            why = contradiction(fact.text, near.fact.text)
            if why and not _different_states(fact, near.fact, why):
                return CheckedFact(fact, "contradiction", f"Contradicts {near.fact.id}: {why}.", near.fact)
        for near in comparable:
            if near_duplicate(fact.text, near.fact.text, near.similarity):
                reason = f"Says the same as {near.fact.id} (similarity {near.similarity:.2f})."
                return CheckedFact(fact, "duplicate", reason, near.fact)
        return CheckedFact(fact, "new")

    def _nearest(self, fact: Fact, vector: np.ndarray) -> list[_Neighbour]:
        if self._large:
            found = self.store.search(fact.text, domain=self.domain, status=STATUSES, k=_NEIGHBOURS, mode="dense")
            return [_Neighbour(item.fact, item.score) for item in found]
        return _best(self._facts, self._vectors, vector)

    def _off_domain(self, facts: Sequence[Fact], vectors: np.ndarray) -> list[str | None]:
        """Why each candidate does not belong to this domain; None where it does."""
        import numpy as np

        if not facts:
            return []
        affinities = self._affinities(vectors)
        own = affinities.pop(self.domain, np.zeros(len(facts)))
        if self._size < ENOUGH_FACTS:
            overall = np.max([own, *affinities.values()], axis=0)
            reason = f"Has nothing to do with {self.domain!r} or any other pack (similarity {{:.2f}})."
            return [reason.format(value) if value < UNRELATED_TO_ALL else None for value in overall]
        names = [name for name in affinities if name != "general"]
        others = np.stack([affinities[name] for name in names]) if names else np.zeros((1, len(facts)))
        products = {term.name for term in self.store.packs()[self.domain].products}
        at_home = _at_home(facts, own - others.max(axis=0), products)
        floors = _floors(facts, own)
        reasons: list[str | None] = []
        for row, value in enumerate(own):
            rival = float(others[:, row].max())
            if value < floors[row]:
                reasons.append(f"Has nothing to do with {self.domain!r} (similarity {value:.2f}).")
            elif not at_home[row] and value < FOREIGN[0] and rival - value > FOREIGN[1]:
                name = names[int(others[:, row].argmax())]
                scores = f"similarity {rival:.2f} against {value:.2f}"
                reasons.append(f"Reads like {name!r} rather than {self.domain!r} ({scores}); add it there.")
            else:
                reasons.append(None)
        return reasons

    def _affinities(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """How close each candidate is to each pack: mean of its three nearest facts, or its nearest name if closer."""
        import numpy as np

        names, counts = self.store.packs(), {info.name: info.counts for info in self.store.domains()}
        affinities = {}
        for domain, pack in names.items():
            terms = [", ".join((term.name, *term.synonyms)) for term in (*pack.products, *pack.defects)]
            head = [text for text in (f"{pack.title}. {pack.description}".strip(". "), *terms) if text]
            near = (vectors @ self._embedder.encode(head).T).max(axis=1) if head else np.zeros(len(vectors))
            if 0 < counts[domain].get("approved", 0) + counts[domain].get("proposed", 0) <= _IN_MEMORY:
                facts = (
                    self._facts if domain == self.domain else self.store.facts(domain, status=("approved", "proposed"))
                )
                matrix = self._vectors if domain == self.domain else self.store.embed(facts)
                best = np.sort(vectors @ matrix.T, axis=1)[:, -3:].mean(axis=1)
                near = np.maximum(near, best)
            affinities[domain] = near
        return affinities


class _Batch:
    """Candidates that passed, so that the next ones are compared with them too."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.vectors: list[np.ndarray] = []

    def add(self, fact: Fact, vector: np.ndarray) -> None:
        self.facts.append(fact)
        self.vectors.append(vector)

    def nearest(self, vector: np.ndarray) -> list[_Neighbour]:
        import numpy as np

        return _best(self.facts, np.asarray(self.vectors), vector) if self.facts else []


def _best(facts: Sequence[Fact], matrix: np.ndarray, vector: np.ndarray) -> list[_Neighbour]:
    import numpy as np

    if not facts:
        return []
    similar = matrix @ vector
    best = np.argsort(-similar, kind="stable")[:_NEIGHBOURS]
    return [_Neighbour(facts[row], float(similar[row])) for row in best if similar[row] >= _CONTRADICTION_FROM]


def near_duplicate(first: str, second: str, similarity: float) -> bool:
    """Whether two sentences say the same in other words: alike as a whole, with the same numbers, and no word replaced.

    Storing a repetition costs a line; merging two facts that differ in one word would lose one of them. So a pair in
    which a word stands in the place of another that is not its synonym ("upper" / "outer") is never a duplicate.

    Args:
        first: a sentence.
        second: another one.
        similarity: cosine of their embeddings.
    """
    shorter, longer = sorted((first, second), key=len)
    if longer.startswith(f"{shorter} "):  # a sentence that leans on the one before it stands behind that one
        return False
    left, right = profile(first), profile(second)
    if not all(any(a.same_as(b) for b in right.quantities) for a in left.quantities):
        return False
    if len(left.quantities) != len(right.quantities) or find_flips(left, right) or replaced_words(left, right):
        return False
    common = len(left.stems & right.stems) / max(1, len(left.stems | right.stems))
    return similarity >= NEARLY_SAME or (similarity >= SAME_WORDS[0] and common >= SAME_WORDS[1])


def _about_the_same(first: Fact, second: Fact) -> bool:
    """Facts about different products or different defects can neither repeat nor contradict each other."""
    return _meet(first.products, second.products) and _meet(first.defects, second.defects)


def _meet(first: Iterable[str], second: Iterable[str]) -> bool:
    ours, theirs = {name.casefold() for name in first}, {name.casefold() for name in second}
    return not ours or not theirs or bool(ours & theirs)


def _different_states(first: Fact, second: Fact, why: str) -> bool:
    """ "The rim shows no chips" of a good part does not contradict "the rim shows chips" of a bad one."""
    kinds = {first.kind, second.kind}
    return kinds == {"normal-variation", "appearance"} and (
        "denies" in why or bool(first.defects) != bool(second.defects)
    )


def _at_home(facts: Sequence[Fact], margins: np.ndarray, products: set[str]) -> list[bool]:
    """Whether the file of each candidate as a whole belongs to the domain: then single sentences may stray.

    It does where it speaks of one of the pack's products, or reads like the pack.
    """
    import numpy as np

    return [
        bool(products.intersection(fact.products)) or (len(rows) >= 3 and float(np.median(margins[rows])) >= 0.0)
        for fact, rows in zip(facts, _read_together(facts), strict=True)
    ]


def _floors(facts: Sequence[Fact], own: np.ndarray) -> list[float]:
    """The least similarity asked of each candidate: less in a file that is plainly about the domain."""
    return [
        IN_CONTEXT[1] if _file(fact) and float(own[rows].max()) >= IN_CONTEXT[0] else UNRELATED
        for fact, rows in zip(facts, _read_together(facts), strict=True)
    ]


def _read_together(facts: Sequence[Fact]) -> list[list[int]]:
    """Rows that are judged together with each candidate: its file, of a file about several products its own product's."""
    files: dict[str, list[int]] = {}
    groups: dict[tuple[str, ...], list[int]] = {}
    for row, fact in enumerate(facts):
        files.setdefault(_file(fact), []).append(row)
        groups.setdefault((_file(fact), *fact.products), []).append(row)
    return [groups[(_file(fact), *fact.products)] if fact.products else files[_file(fact)] for fact in facts]


def _file(fact: Fact) -> str:
    return next((source.file for source in fact.sources if source.file), "") or ""
