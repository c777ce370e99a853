"""The fact store: the packs on disk, the catalogue and vector index derived from them, and the search over both.

The packs are what counts. A change is a line appended to a pack's log and put on the disk before the command that made it
says so; the catalogue (SQLite) and the vector index (FAISS) are in the cache, follow the packs, and are made anew, with
one line on standard error, when they are damaged or belong to another embedding model.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import shutil
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.knowledge.facts import KINDS, STATUSES, Fact, Kind, fact_from_record, now
from sage_ad.knowledge.store.catalogue import Catalogue
from sage_ad.knowledge.store.index_sync import IndexSync, file_lock
from sage_ad.knowledge.store.new_pack import create_pack
from sage_ad.knowledge.store.packs import GENERAL, LOG, SHIPPED, Pack, Term, append_to_logs
from sage_ad.knowledge.store.product_match import DomainMatch, ProductNames, name_key
from sage_ad.knowledge.store.retrieval import (
    MODES,
    Mode,
    Query,
    ScoredFact,
    diversify,
    fuse,
    pool_size,
    within_budget,
)
from sage_ad.knowledge.text.instructions import instruction_reason
from sage_ad.vlm.errors import BackendError, InputError
from sage_ad.vlm.paths import cache_home, data_home

if TYPE_CHECKING:
    import numpy as np

    from sage_ad.knowledge.store.cards import DefectCard
    from sage_ad.knowledge.text.classifier import FactClassifier
    from sage_ad.knowledge.vectors.embedding_cache import Embedder


@dataclass(frozen=True)
class AddReport:
    """What an add did.

    Attributes:
        added: facts that are new.
        merged: facts that were there and got further sources (or an approval).
        known: facts that were there already with all of this; nothing was written for them.
    """

    added: list[Fact] = field(default_factory=list)
    merged: list[Fact] = field(default_factory=list)
    known: list[Fact] = field(default_factory=list)


@dataclass(frozen=True)
class DomainInfo:
    """A pack in numbers.

    Attributes:
        name, title, description, version, licence: from its `pack.yaml`.
        products, defects: what it names.
        counts: number of facts by status; `kinds`: by kind, without rejected ones.
        shipped: whether it came with SAGE; `edited`: whether the user has files of their own in it.
    """

    name: str
    title: str
    description: str
    version: str
    licence: str
    products: tuple[Term, ...]
    defects: tuple[Term, ...]
    counts: dict[str, int]
    kinds: dict[str, int]
    shipped: bool
    edited: bool


def _copy_folder(source: Path, target: Path) -> None:
    """Copies a cache folder; it appears whole or not at all, and another process may be quicker."""
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copytree(source, draft)
        draft.rename(target)
    except OSError:
        # What is derived can be derived again: the store then reads the packs itself.
        shutil.rmtree(draft, ignore_errors=True)


class FactStore:
    """Facts of all packs: search, add, approve, edit, remove. Thread-safe; several processes may use one at a time.

    Take `FactStore.open()`.
    """

    def __init__(
        self,
        home: Path,
        cache: Path,
        shipped: Path,
        embedder: Embedder | None,
        vector_store: Any,
        warn: bool,
    ) -> None:
        self.user = home / "domains"
        self.shipped = shipped
        name = hashlib.sha256(f"{shipped.resolve()}\n{self.user.resolve()}".encode()).hexdigest()[:12]
        self.cache = cache / "knowledge" / name
        self._seed = cache / "knowledge" / f"shipped-{hashlib.sha256(str(shipped.resolve()).encode()).hexdigest()[:12]}"
        if self._seed.is_dir() and not self.cache.exists():
            _copy_folder(self._seed, self.cache)
        self._read_packs = False
        self._lock = threading.RLock()
        self._product_names: tuple[int, ProductNames] | None = None
        self._classifier: FactClassifier | None = None
        self.catalogue = Catalogue(self.cache / "catalogue.sqlite", shipped, self.user, warn=warn)
        self._follower = IndexSync(self.catalogue, self.cache / "index", cache / "embeddings", embedder, vector_store)

    @classmethod
    def open(
        cls,
        home: Path | str | None = None,
        embedder: Embedder | None = None,
        *,
        cache: Path | str | None = None,
        shipped: Path | str | None = None,
        vector_store: Any = None,
        warn: bool = True,
    ) -> FactStore:
        """Opens the store; nothing is embedded and no model is loaded until a search needs it.

        Args:
            home: the user's data folder; None takes `data_home()`.
            embedder: the sentence embedder; None takes the process's `default_embedder()` when it is needed.
            cache: folder of the derived files; None takes `cache_home()`.
            shipped: folder of the shipped packs; None takes those that came with SAGE.
            vector_store: a llama-index vector store, or its address (see `knowledge.vectors.backends.open_vectors`), in place of
                FAISS; None takes the environment variable SAGE_VECTOR_STORE, else FAISS.
            warn: whether a fault of a pack is said on standard error when it is first met; who lists `problems` need not.

        Raises:
            BackendError: when the cache cannot be written.
        """
        store = cls(
            Path(home) if home is not None else data_home(),
            Path(cache) if cache is not None else cache_home(),
            Path(shipped) if shipped is not None else SHIPPED,
            embedder,
            vector_store,
            warn,
        )
        store._read_packs = store.catalogue.sync()
        return store

    def close(self) -> None:
        """Waits for work in the background and closes all files."""
        with self._lock:
            self._follower.close()
            self.catalogue.close()
            # A home without packs of its own holds what every home begins with: another one need not read it all again.
            old = self._read_packs or not self._seed.exists()
            if old and not self.user.exists() and (self.cache / "index").is_dir():
                aside = self._seed.with_name(f".{self._seed.name}.{os.getpid()}.old")
                with contextlib.suppress(OSError):  # there is none, or another process was quicker
                    self._seed.rename(aside)
                    shutil.rmtree(aside)
                _copy_folder(self.cache, self._seed)

    def __enter__(self) -> FactStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, identity: str) -> Fact:
        """The fact with this id, or with the only id that begins so (4 digits or more).

        Raises:
            InputError: when there is none, or more than one.
        """
        self.catalogue.sync()
        wanted = identity.strip().lower()
        if found := self.catalogue.get([wanted]):
            return found[wanted]
        ids = self.catalogue.ids_like(wanted) if 4 <= len(wanted) < 16 else []
        if len(ids) == 1:
            return self.catalogue.get(ids)[ids[0]]
        if ids:
            raise InputError(f"Fact id {identity!r} is ambiguous ({', '.join(ids)} ...); give more of its digits.")
        raise InputError(f"Fact {identity!r} is not in the knowledge base; sage-kb search or sage-kb list gives ids.")

    def facts(
        self,
        domain: str | None = None,
        *,
        kind: str | Collection[str] | None = None,
        status: str | Collection[str] | None = None,
        source: str | None = None,
    ) -> list[Fact]:
        """Facts in the order in which they were stored; `iterate` does the same without a list of all of them.

        Args:
            domain: only this pack's.
            kind, status: one or several of `KINDS` and `STATUSES`.
            source: only those of this source: a file's name as the facts have it, or its SHA-256.
        """
        return list(self.iterate(domain, kind=kind, status=status, source=source))

    def iterate(
        self,
        domain: str | None = None,
        *,
        kind: str | Collection[str] | None = None,
        status: str | Collection[str] | None = None,
        source: str | None = None,
    ) -> Iterator[Fact]:
        """As `facts`, one at a time."""
        self.catalogue.sync()
        self.check_domain(domain)
        kinds, statuses = _choice(kind, KINDS, "kind"), _choice(status, STATUSES, "status")
        return self.catalogue.facts(domain, kinds, statuses, source)

    def packs(self) -> dict[str, Pack]:
        """The packs by name, the user's laid over the shipped ones."""
        self.catalogue.sync()
        return self.catalogue.packs()

    def cards(self, domain: str) -> list[DefectCard]:
        """The defect cards of a pack, the user's laid over the shipped ones by name.

        Raises:
            InputError: for an unknown domain.
        """
        self.catalogue.sync()
        self.check_domain(domain)
        return self.catalogue.cards(domain)

    def domains(self) -> list[DomainInfo]:
        """All packs with their numbers of facts."""
        packs, counts = self.packs(), self.catalogue.counts()
        edited = self.catalogue.user_domains()
        infos = []
        for name, pack in packs.items():
            own = {key[1:]: count for key, count in counts.items() if key[0] == name}
            by_status: dict[str, int] = {s: sum(c for (_, status), c in own.items() if status == s) for s in STATUSES}
            by_kind: dict[str, int] = {
                k: sum(c for (kind, s), c in own.items() if kind == k and s != "rejected") for k in KINDS
            }
            infos.append(
                DomainInfo(
                    name,
                    pack.title,
                    pack.description,
                    pack.version,
                    pack.licence,
                    pack.products,
                    pack.defects,
                    by_status,
                    by_kind,
                    (self.shipped / name).is_dir(),
                    name in edited,
                )
            )
        return infos

    def match_product(self, text: str, *, question: bool = False) -> DomainMatch:
        """Which pack serves a product; an unknown one gets the general pack, and `note` says so.

        With `question` the text may mention a product but is not its name. The embedder is loaded only for a name that
        is no pack's; the vectors of all names are then made once and kept.
        """
        packs, version = self.packs(), self.catalogue.version
        with self._lock:
            if self._product_names is None or self._product_names[0] != version:
                own = self.catalogue.user_domains()
                self._product_names = version, ProductNames(packs, GENERAL, own)
            return self._product_names[1].match(text, self._follower.embed, question=question)

    def problems(self) -> list[str]:
        """One line for everything in the packs that could not be read."""
        self.catalogue.sync()
        return self.catalogue.problems()

    def check_domain(self, domain: str | None) -> None:
        """Refuses a domain that does not exist (None is none).

        Raises:
            InputError: with the nearest one.
        """
        if domain is not None and domain not in (packs := self.catalogue.packs()):
            near = difflib.get_close_matches(domain, packs, 1)
            raise InputError(
                f"There is no domain named {domain!r}{f'; the nearest is {near[0]}' if near else ''} (sage-kb stats lists all, "
                "sage-kb new-domain makes one)."
            )

    # -- searching -------------------------------------------------------------------------------------------------

    def search(
        self,
        text: str,
        *,
        domain: str | Collection[str] | None = None,
        kind: str | Collection[str] | None = None,
        status: str | Collection[str] | None = ("approved", "proposed"),
        k: int = 8,
        mode: Mode = "fused",
        product: str | None = None,
        place: str | None = None,
        defect: str | None = None,
        token_budget: int | None = None,
        diversity: float = 0.0,
    ) -> list[ScoredFact]:
        """The facts that fit best, best first.

        Args:
            text: the question, or any words.
            domain, kind, status: what may be found, one or several of each; None lets all pass.
            k: how many at most.
            mode: "dense" (embedding), "lexical" (BM25) or "fused" (both).
            product, place, defect: what is known of the part and what the evidence shows; they count in the query.
            token_budget: most tokens that the texts together may have.
            diversity: 0 (the best k) to 1: how much facts that repeat one another are held back.

        Raises:
            InputError: for an unknown domain, kind, status or mode, or a k below 1.
        """
        if mode not in MODES:
            raise InputError(f"Search mode {mode!r} is not known; use one of {', '.join(MODES)}.")
        if k < 1:
            raise InputError(f"{k} facts cannot be found; ask for 1 or more (-k).")
        self.catalogue.sync()
        domains = () if domain is None else (domain,) if isinstance(domain, str) else tuple(domain)
        for name in domains:
            self.check_domain(name)
        kinds, statuses = _choice(kind, KINDS, "kind"), _choice(status, STATUSES, "status")
        query = Query(text, product, defect, place)
        limits = {"domain": domains, "kind": kinds, "status": statuses}
        found = self._rank(query, mode, pool_size(k), limits)
        if diversity > 0:
            vectors = self._follower.embed([item.fact.text for item in found])
            taken = diversify([item.score for item in found], vectors, k, diversity)
            found = [found[position] for position in taken]
        if token_budget is not None:
            found = within_budget(found, token_budget)
        return found[:k]

    def _rank(self, query: Query, mode: Mode, pool: int, limits: Mapping[str, Sequence[str]]) -> list[ScoredFact]:
        """Candidates of both searches (or of one), best first."""
        lexical: dict[str, float] = {}
        if mode != "dense":
            lexical = dict(self.catalogue.lexical(query.words(), 3 * pool, **limits))
        if mode == "lexical" or not query.sentence():
            facts = self.catalogue.get(list(lexical))
            return [ScoredFact(facts[identity], score) for identity, score in lexical.items() if identity in facts]
        vector = self._follower.embedder().encode([query.sentence()])[0]
        dense = dict(self._follower.use(lambda vectors: vectors.search(vector, pool, limits)))
        facts = self.catalogue.get([*dense, *(identity for identity in lexical if identity not in dense)])
        dense = {identity: score for identity, score in dense.items() if identity in facts}
        if missing := [fact for identity, fact in facts.items() if identity not in dense]:
            similarities = self._follower.embed([fact.text for fact in missing]) @ vector
            dense.update(zip((fact.id for fact in missing), similarities.tolist(), strict=True))
        if mode == "dense":
            ranked = list(dense.items())
        elif len(limits["kind"]) == 1:
            ranked = fuse(dense, lexical)
        else:
            asked = self._asked_kinds(query.sentence(), vector)
            ranked = fuse(dense, lexical, {identity: asked[facts[identity].kind] for identity in dense})
        return [ScoredFact(facts[identity], score, dense[identity]) for identity, score in ranked]

    def _asked_kinds(self, text: str, vector: np.ndarray) -> dict[Kind, float]:
        """Probability of each kind that a query asks for facts of it, by what tells sentences of that kind."""
        from sage_ad.knowledge.text.classifier import FactClassifier

        if self._classifier is None:
            self._classifier = FactClassifier.fitted(self._follower.embedder())
        return self._classifier.judge([text], vector[None])[0].kinds

    def embed(self, facts: Sequence[Fact]) -> np.ndarray:
        """The vectors of facts, (n, dimensions) float32; those embedded before come from the cache."""
        return self._follower.embed([fact.text for fact in facts])

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors of any texts, (n, dimensions) float32; those embedded before come from the cache."""
        return self._follower.embed(texts)

    def prepare(self) -> None:
        """Brings catalogue and vector index up to date now, instead of at the next search."""
        self.catalogue.sync()
        self._follower.use(lambda vectors: None)

    @property
    def index_folder(self) -> Path:
        """Where the vector index lies."""
        return self._follower.folder

    # -- writing ---------------------------------------------------------------------------------------------------

    def add(self, facts: Iterable[Fact]) -> AddReport:
        """Stores facts; what the report names is on the disk when this returns.

        A fact whose text is there already in its domain gets the new sources; an approved one approves a proposed one;
        a rejected one stays rejected.

        Raises:
            BackendError: when the disk is full; nothing of the add is stored then.
        """
        report = AddReport()
        with self._writing() as log:
            incoming = list(facts)
            stored = self.catalogue.by_key([fact.key for fact in incoming])
            edited = self.catalogue.get([fact.id for fact in incoming])
            for fact in incoming:
                # The same text, or the same fact that was edited since, here or where it comes from.
                old = stored.get(fact.key) or edited.get(fact.id)
                if old is None:
                    merged = fact if fact.added else fact.model_copy(update={"added": now()})
                    report.added.append(merged)
                else:
                    merged = _merge(old, fact)
                    (report.known if merged == old else report.merged).append(merged)
                if merged != old:
                    log.append(merged)
                stored[fact.key] = edited[fact.id] = merged
        return report

    def put(self, facts: Iterable[Fact]) -> None:
        """Stores facts as they are, each in place of the one with its id."""
        with self._writing() as log:
            log.extend(facts)

    def set_status(self, identity: str, status: str) -> Fact:
        """Approves, rejects or proposes a fact; returns it as it is now."""
        _choice(status, STATUSES, "status")
        with self._writing() as log:
            fact = self.get(identity)
            if fact.status != status:
                fact = _changed(fact, {"status": status, "edited": now()})
                log.append(fact)
        return fact

    def edit(self, identity: str, **fields: Any) -> Fact:
        """Changes text, kind, products, defects, flags, sources or status of a fact; its id stays.

        Products and defects may be given by any of their names; the fact gets the pack's.

        Raises:
            InputError: for an unknown id, an unusable value, a text that gives orders to a model, or one that another fact
                of the domain has.
        """
        if reason := instruction_reason(str(fields.get("text", ""))):
            raise InputError(f"Fact {identity} was not changed: the text reads like an order to a model ({reason}).")
        with self._writing() as log:
            fact = self.get(identity)
            pack = self.packs().get(fact.domain)
            for name in fields.keys() & {"products", "defects"} if pack else ():
                first = {name_key(own): term.name for term in getattr(pack, name) for own in term.names}
                fields[name] = [first.get(name_key(given), given) for given in fields[name]]
            changed = _changed(fact, {**fields, "edited": now()})
            if changed.domain != fact.domain or changed.id != fact.id:
                raise InputError(f"Domain and id of fact {fact.id} cannot be changed; remove it and add it elsewhere.")
            other = self.catalogue.by_key([changed.key]).get(changed.key)
            if other is not None and other.id != fact.id:
                raise InputError(f"Fact {other.id} says exactly that already; remove one of the two.")
            log.append(changed)
        return changed

    def remove(self, identities: Iterable[str]) -> list[Fact]:
        """Removes facts; a shipped one is only hidden (its pack is not written). Returns what was removed."""
        with self._writing() as log:
            wanted = [identities] if isinstance(identities, str) else list(identities)
            facts = [self.get(identity) for identity in wanted]
            time = now()
            log.extend({"id": fact.id, "domain": fact.domain, "removed": time} for fact in facts)
        return facts

    def check(self) -> list[str]:
        """Reads everything there is; one line for each thing that is wrong, none when all is well."""
        from sage_ad.knowledge.store.pack_checks import check_pack, check_packs

        packs = self.packs()
        without_head = self.catalogue.without_head()
        problems = self.problems() + self.catalogue.check_files()
        for name, pack in packs.items():  # from the catalogue, which looks at all files once and not for each pack
            approved = list(self.catalogue.facts(name, status=("approved",)))
            problems += check_pack(name, pack, self.catalogue.cards(name), approved, products=name not in without_head)
        problems += check_packs(packs, self.catalogue.user_domains(), self.iterate(status=("approved", "proposed")))
        problems += [f"Fact {fact.id} has no source: {fact.text[:60]}" for fact in self.iterate() if not fact.sources]
        try:
            self._follower.verify()
        except BackendError as error:
            problems.append(str(error))
        return problems

    def new_domain(self, name: str) -> Path:
        """Makes a pack's folder with an example to fill in; returns the folder."""
        with self._writing():
            return create_pack(self.user, name)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[list[Fact | dict[str, Any]]]:
        """Collects records while no other process writes, then stores them all before it returns."""
        with self._lock, file_lock(self.user / ".lock"):
            self.catalogue.sync()
            log: list[Fact | dict[str, Any]] = []
            yield log
            logs: dict[Path, list[dict[str, Any]]] = {}
            for entry in log:
                record = entry.record() if isinstance(entry, Fact) else entry
                logs.setdefault(self.user / record["domain"] / "facts" / LOG, []).append(record)
            append_to_logs(logs)
        try:
            self.catalogue.sync()
        except BackendError as error:  # it is stored: the cache may follow later
            print(f"Warning: {error}", file=sys.stderr)


def _merge(old: Fact, new: Fact) -> Fact:
    """The stored fact with the sources of one that says the same, or the later edit of the same fact."""
    newer = old.id == new.id and (new.edited or "") > (old.edited or "")
    sources = old.sources + tuple(source for source in new.sources if source not in old.sources)
    approves = (old.status, new.status) == ("proposed", "approved")
    status = new.status if newer or approves else old.status
    names = {
        name: tuple(dict.fromkeys((*getattr(old, name), *getattr(new, name))))
        for name in ("products", "defects", "flags")
    }
    text, kind = (new.text, new.kind) if newer else (old.text, old.kind)
    changed = {"text": text, "kind": kind, "sources": sources, "status": status, **names}
    return old.model_copy(update={**changed, "edited": new.edited if newer else old.edited})


def _changed(fact: Fact, fields: Mapping[str, Any]) -> Fact:
    return fact_from_record({**fact.model_dump(), **fields}, f"Fact {fact.id}")


def _choice(given: str | Collection[str] | None, known: Sequence[str], what: str) -> tuple[str, ...]:
    values = () if given is None else (given,) if isinstance(given, str) else tuple(given)
    for value in values:
        if value not in known:
            raise InputError(f"The {what} {value!r} is not known; use one of {', '.join(known)}.")
    return values
