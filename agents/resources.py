"""The heavy parts that an inspection works with, loaded once and shared: eyes, knowledge, language model, judge."""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.agents.settings import AgentSettings
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.evidence.encoders import DEFAULT_ENCODER

if TYPE_CHECKING:
    from PIL import Image

    from sage_ad.evaluation.inspection import Judge
    from sage_ad.knowledge.store.fact_store import FactStore
    from sage_ad.vlm.backends.base import LanguageBackend
    from sage_ad.vlm.evidence.description import Description
    from sage_ad.vlm.evidence.extractor import Evidence, EvidenceExtractor, MemoryBank
    from sage_ad.vlm.evidence.peers import PeerEvidence
    from sage_ad.vlm.pictures.brightness import Brightness

BANKS_KEPT = 8
VIEWS_KEPT = 4
PICTURES_KEPT = 16
"""References whose pictures are kept to be shown and compared with; of more, the patches alone are."""


@dataclass
class View:
    """One test part as seen: pictures and evidence (see `sage_ad.vlm.evidence.extractor.Evidence`).

    `descriptions` are those of the evidence's regions, whose boxes hold the pixels that are described. `notes` say what of
    the pictures was left out when they were read, `brightness` the range that was used (None: 8 bits).
    """

    image: Image.Image
    references: list[Image.Image]
    evidence: Evidence
    descriptions: list[Description] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    brightness: Brightness | None = None

    @property
    def summary(self) -> str:
        """Where the threshold and the range of brightness come from, in sentences."""
        reason = self.evidence.threshold_reason
        return reason if self.brightness is None else f"{reason} {self.brightness.sentence}"


def file_key(path: Path) -> tuple[str, int, int]:
    """Identity of a picture's content for caching: absolute path (with its page), size and time of change of the file."""
    from sage_ad.vlm.images import file_of

    stat = file_of(path).stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns


class Resources:
    """Context of the graph. Parts are made when first used, or given by the caller; safe to share between threads.

    Args:
        settings: which model, device and judge to load.
        same_as: other resources, whose parts these share, those that are made later too.
        extractor, store, backend, judge: ready parts, used in place of those that the settings name.
    """

    def __init__(
        self,
        settings: AgentSettings,
        *,
        same_as: Resources | None = None,
        extractor: EvidenceExtractor | None = None,
        store: FactStore | None = None,
        backend: LanguageBackend | None = None,
        judge: Judge | None = None,
    ) -> None:
        self.settings = settings
        self._parts: dict[str, Any] = {
            name: part
            for name, part in {"extractor": extractor, "store": store, "backend": backend, "judge": judge}.items()
            if part is not None
        }
        self._lock = threading.RLock()
        if same_as is not None:
            self._parts, self._lock = same_as._parts, same_as._lock
        self._banks: OrderedDict[tuple[Any, ...], tuple[list[Image.Image], MemoryBank]] = OrderedDict()
        self._views: OrderedDict[tuple[Any, ...], View] = OrderedDict()
        self.load_seconds: dict[str, float] = {}

    def _part(self, name: str, make: Callable[[], Any]) -> Any:
        with self._lock:
            if name not in self._parts:
                start = time.perf_counter()
                self._parts[name] = make()
                self.load_seconds[name] = time.perf_counter() - start
            return self._parts[name]

    @property
    def extractor(self) -> EvidenceExtractor:
        """Visual evidence."""

        def make() -> EvidenceExtractor:
            from sage_ad.vlm.evidence.extractor import EvidenceExtractor, EvidenceSettings

            own = self.settings
            extractor = EvidenceExtractor(EvidenceSettings(encoder=own.encoder, device=own.device, tile=own.tile))
            _ = extractor.encoder  # loaded now: a first inspection should not pay for it
            return extractor

        part: EvidenceExtractor = self._part("extractor", make)
        return part

    @property
    def store(self) -> FactStore:
        """The knowledge base: shipped packs with the user's own on top."""

        def make() -> FactStore:
            from sage_ad.knowledge.store.fact_store import FactStore

            return FactStore.open()

        part: FactStore = self._part("store", make)
        return part

    @property
    def backend(self) -> LanguageBackend:
        """The language model."""

        def make() -> LanguageBackend:
            from sage_ad.vlm.backends.registry import load_backend

            own = self.settings
            backend = load_backend(own.model, device=own.device, progress=lambda line: print(line, file=sys.stderr))
            if hasattr(backend, "answer_parts") and own.encoder != DEFAULT_ENCODER:
                raise InputError(
                    f"The model {backend.name} was trained on patches of {DEFAULT_ENCODER} and cannot read those of "
                    f"{own.encoder}; name another model for questions, or leave out the encoder."
                )
            return backend

        part: LanguageBackend = self._part("backend", make)
        return part

    @property
    def judge(self) -> Judge:
        """The MLE judge."""

        def make() -> Judge:
            from sage_ad.evaluation.judge.loading import load_judge

            return load_judge(self.settings.judge)

        part: Judge = self._part("judge", make)
        return part

    def load(self, *, language: bool = True) -> None:
        """Loads every part now, so that the first inspection is as quick as the next."""
        for name in ("extractor", "store", *(("backend", "judge") if language else ())):
            getattr(self, name)

    def bank(
        self, references: Sequence[Path], brightness: Brightness | None = None
    ) -> tuple[list[Image.Image], MemoryBank | None]:
        """Reference pictures (the first `PICTURES_KEPT`) and the encoded bank of all; encoded once for the same files.

        Args:
            references: addresses of the pictures.
            brightness: the range that they share with the part, for pictures of more than 8 bits.
        """
        from sage_ad.vlm.images import file_of, load_image

        if not references:
            return [], None
        images = None
        key = (brightness, *(file_key(path) for path in references if file_of(path).is_file()))
        with self._lock:
            if len(key) == len(references) + 1 and key in self._banks:
                self._banks.move_to_end(key)
                return self._banks[key]
        images = [load_image(path, brightness=brightness) for path in references[:PICTURES_KEPT]]
        bank = self._kept_bank(references, brightness, images)
        with self._lock:
            self._banks[key] = images, bank
            while len(self._banks) > BANKS_KEPT:
                self._banks.popitem(last=False)
        return images, bank

    def _kept_bank(
        self, references: Sequence[Path], brightness: Brightness | None, images: list[Image.Image]
    ) -> MemoryBank:
        """The bank that an earlier process made of the same pictures, or a new one, which is kept for later ones."""
        if not self.settings.keep_references:
            return self._new_bank(references, brightness, images)
        from sage_ad.agents.kept_banks import bank_file, keep_bank, read_bank

        file = bank_file(self.extractor, references, brightness)
        bank = read_bank(file, self.extractor.encoder.device)
        if bank is None:
            bank = self._new_bank(references, brightness, images)
            try:
                keep_bank(file, bank)
            except OSError as error:
                print(
                    f"  The references made ready cannot be kept in {file.parent} ({error.strerror}).", file=sys.stderr
                )
        return bank

    def _new_bank(
        self, references: Sequence[Path], brightness: Brightness | None, images: list[Image.Image]
    ) -> MemoryBank:
        from sage_ad.vlm.images import load_image, notes_of

        if len(references) <= PICTURES_KEPT:
            return self.extractor.prepare(images)
        rest: list[str] = []

        def load(path: Path) -> Image.Image:
            image = load_image(path, brightness=brightness)
            rest.extend(notes_of(image))
            return image

        more = [partial(load, path) for path in references[PICTURES_KEPT:]]
        bank = self.extractor.prepare([*images, *more], say=lambda line: print(f"  {line}", file=sys.stderr))
        bank.warnings += dict.fromkeys(rest)
        return bank

    def view(self, image: Path, references: Sequence[Path]) -> View:
        """Measures a part (or remembers the result for these very files).

        Raises:
            InputError: a picture cannot be read.
        """
        from sage_ad.vlm.images import in_range, load_image, shared_brightness

        picture = load_image(image)
        brightness = shared_brightness([image, *references])
        picture = in_range(picture, image, brightness)
        pictures, bank = self.bank(references, brightness)
        key = (file_key(image), *(file_key(path) for path in references))
        with self._lock:
            if key in self._views:
                self._views.move_to_end(key)
                return self._views[key]
        view = self._extract(picture, pictures, bank, brightness)
        with self._lock:
            self._views[key] = view
            while len(self._views) > VIEWS_KEPT:
                self._views.popitem(last=False)
        return view

    def _extract(
        self,
        picture: Image.Image,
        pictures: list[Image.Image],
        bank: MemoryBank | None,
        brightness: Brightness | None,
        peers: PeerEvidence | None = None,
    ) -> View:
        from sage_ad.vlm.evidence.description import describe_regions
        from sage_ad.vlm.images import notes_of

        notes = tuple(dict.fromkeys(note for shown in (picture, *pictures) for note in notes_of(shown)))
        if peers is None:
            evidence = self.extractor.extract(picture, bank)
        else:
            evidence = self.extractor.extract_among(picture, peers)
        evidence.regions, descriptions = describe_regions(picture, evidence.map, evidence.regions, pictures)
        return View(picture, pictures, evidence, descriptions, notes, brightness)

    def forget_views(self) -> None:
        """Forgets the measured parts (not the references), so that the next call measures anew."""
        with self._lock:
            self._views.clear()


@dataclass(frozen=True)
class AgentContext:
    """What LangGraph hands to every node beside the state (its context schema must be a dataclass)."""

    resources: Resources
