"""`Engine`: the models, the knowledge base and the workers behind all tabs, loaded once and shared by all visitors."""

from __future__ import annotations

import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.demo.services.fair_queue import Event, FairQueue, Job
from sage_ad.demo.services.run_store import RunStore
from sage_ad.demo.services.settings import DemoSettings
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.loaded import release_models

if TYPE_CHECKING:
    from sage_ad.agents.inspector import SageInspector
    from sage_ad.evaluation.inspection import InspectionRequest
    from sage_ad.knowledge.store.fact_store import FactStore

MODELS_KEPT = 2
"""Models beside the default one that stay loaded."""


class Engine:
    """Real parts, made when first used: `SageInspector`s (which share eyes, knowledge and judge), store, queue, runs.

    Args:
        settings: what to load and where to keep things.
        inspector: a ready inspector for the default model.
    """

    def __init__(self, settings: DemoSettings, inspector: SageInspector | None = None) -> None:
        self.settings = settings
        self.queue = FairQueue(
            settings.parallel, report_failure, waiting=settings.waiting, waiting_each=settings.waiting_each
        )
        self.runs = RunStore(settings.home / "runs")
        self._lock = threading.RLock()
        self._inspectors: OrderedDict[str, SageInspector] = OrderedDict()
        self._loaded: set[str] = set()
        if inspector is not None:
            self._inspectors[settings.model] = inspector

    @property
    def store(self) -> FactStore:
        """The knowledge base."""
        return self.inspector().resources.store

    def load(self, model: str | None = None) -> None:
        """Loads what an inspection with this model needs, once.

        Raises:
            SageError: the model cannot be loaded.
        """
        inspector = self.inspector(model)
        inspector.load()
        inspector.resources.store.prepare()
        self._loaded.add(model or self.settings.model)

    def inspector(self, model: str | None = None) -> SageInspector:
        """The inspector of a model; all share eyes, knowledge and judge.

        Raises:
            InputError: visitors may not choose this model.
        """
        from sage_ad.agents.inspector import SageInspector
        from sage_ad.agents.resources import Resources
        from sage_ad.agents.settings import AgentSettings

        name = model or self.settings.model
        if name not in self.settings.models:
            raise InputError(
                f"The model {name!r} is not offered here; choose one of {', '.join(self.settings.models)}, "
                "or start sage-demo with --also."
            )
        with self._lock:
            if name in self._inspectors:
                self._inspectors.move_to_end(name)
                return self._inspectors[name]
            chosen: dict[str, Any] = {
                "model": name,
                "device": self.settings.device,
                "encoder": self.settings.encoder,
                # What is made of visitors' pictures goes with them.
                "keep_references": False,
                "judge": self.settings.judge,
                "seed": self.settings.seed,
            }
            if name == self.settings.model:
                made = SageInspector(**chosen)
            else:
                base = self.inspector().resources
                shared: dict[str, Any] = {"extractor": base.extractor, "store": base.store, "judge": base.judge}
                made = SageInspector(resources=Resources(AgentSettings(**chosen), **shared), **chosen)
            self._inspectors[name] = made
            extra = [key for key in self._inspectors if key != self.settings.model]
            for key in extra[:-MODELS_KEPT]:
                del self._inspectors[key]
                self._loaded.discard(key)
                release_models()  # those that the other inspectors hold stay theirs
            return made

    def inspection(
        self, request: InspectionRequest, model: str | None = None, *, pictures: bool = True
    ) -> Iterator[Event]:
        """What `SageInspector.stream` tells, and {"event": "seen", "pictures": Shown, "trace"} once the part was compared.

        That trace holds what was measured; facts, names, explanation and answers come with the last one. `pictures` False
        leaves them out.

        Raises:
            SageError: the request cannot be served.
        """
        from sage_ad.demo.services.pictures import shown
        from sage_ad.evaluation.inspection import InspectionTrace, about, measured

        inspector = self.inspector(model)
        if request.questions and (model or self.settings.model) not in self._loaded:
            yield {"event": "loading"}
            self.load(model)
        seen = False
        events = inspector.stream(request)
        try:
            for event in events:
                yield event
                if not seen and event["event"] == "step":
                    seen = True
                    view = inspector.resources.view(Path(request.image), [Path(path) for path in request.references])
                    fields = {**about(request), **measured(view.evidence), "warnings": view.evidence.warnings}
                    early = InspectionTrace(**fields, model="", seconds=0.0)
                    yield {"event": "seen", "pictures": shown(view) if pictures else None, "trace": early}
        finally:
            close = getattr(events, "close", None)
            if close is not None:
                close()
            # Pictures of one visitor have no business in memory once they were answered.
            inspector.resources.forget_views()

    def folder(self, requests: Sequence[InspectionRequest]) -> Iterator[Event]:
        """Inspects parts together, those without references by one another (`SageInspector.inspect_many`).

        Yields:
            {"event": "comparing"}, then {"event": "part", "trace", "picture", "size"} for each: a small WebP picture and the
            width and height of the original.

        Raises:
            SageError: a part cannot be inspected.
        """
        from sage_ad.demo.services.pictures import THUMBNAIL, fitted, webp
        from sage_ad.vlm.images import load_image

        yield {"event": "comparing"}
        for trace in self.inspector().inspect_many(requests, compare=True):
            picture = load_image(Path(trace.image))
            yield {"event": "part", "trace": trace, "picture": webp(fitted(picture, THUMBNAIL)), "size": picture.size}

    def submit(self, who: str, request: InspectionRequest, model: str | None = None, *, pictures: bool = True) -> Job:
        """Puts an inspection into the queue."""
        return self.queue.submit(who, lambda: self.inspection(request, model, pictures=pictures))

    def domain_choices(self) -> list[tuple[str, str]]:
        """Title and name of every pack, for a list to choose from."""
        return [(info.title or info.name, info.name) for info in self.store.domains()]


def report_failure(error: BaseException) -> None:
    """Tells the operator (standard error) of a failure that is no fault of a visitor's."""
    print("".join(traceback.format_exception(error)), file=sys.stderr, end="")


def checked_settings(facts: bool = True, learn: bool = False, scale: float | None = None) -> dict[str, Any]:
    """Settings of one inspection as the page offers them (`AgentSettings` fields)."""
    # How facts reach the model (as sentences, or through fusion attention) is the inspector's own choice.
    chosen: dict[str, Any] = {"learn": bool(learn)} if facts else {"facts": "none"}
    return chosen | ({} if scale is None else {"mm_per_pixel": scale})
