"""What one worker of a batch does: several parts in, one row each out. It knows neither folders nor other workers."""

from __future__ import annotations

import io
import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.agents.batch.manifest import Part
from sage_ad.agents.batch.store import Row
from sage_ad.agents.settings import AgentSettings
from sage_ad.agents.shared_calls import BatchResources
from sage_ad.evaluation.inspection import MEASURED, InspectionRequest, InspectionTrace, TraceStep, about
from sage_ad.vlm.errors import SageError

if TYPE_CHECKING:
    from sage_ad.agents.inspector import SageInspector

EVIDENCE_ONLY = "none (evidence only)"
"""Name of the model in rows that no language model had a part in."""


@dataclass(frozen=True)
class BatchSettings:
    """How the parts of a batch are inspected.

    Attributes:
        agent: settings of the agent (model, device, facts, judge, seed, ...).
        language: False measures evidence only: no facts, no explanation, no answers.
        asks: whether any part brings a question; without one no language model is loaded.
        pictures: make an evidence picture of every part.
        chunk: parts that one worker takes at a time, whose words are written together; 0 leaves the choice to SAGE.
    """

    agent: AgentSettings = field(default_factory=AgentSettings)
    language: bool = True
    asks: bool = True
    pictures: bool = False
    chunk: int = 0

    def of_rows(self) -> dict[str, Any]:
        """What the rows depend on; device and chunk may change when a batch continues."""
        agent = self.agent.model_dump(mode="json", exclude={"device", "review", "keep_references"})
        return {**agent, "language": self.language, "pictures": self.pictures}


@dataclass
class Finished:
    """What a worker hands back for the parts that it was given.

    Attributes:
        rows: one row a part, as `results.parquet` keeps it; fewer if the back end went away.
        pictures: PNG files by part key.
        stopped: why the batch cannot continue (a server that answers nothing any more), else None.
    """

    rows: list[Row]
    pictures: dict[str, bytes] = field(default_factory=dict)
    stopped: str | None = None


class PartWorker:
    """Inspects parts, several at a time; holds the models, the encoded references and the pictures decoded ahead.

    Args:
        settings: how the parts are inspected.
        parts: ready parts of the resources (see `Resources`), used in place of those that the settings name.

    Raises:
        InputError, BackendError: (from `load`) a model cannot be used.
    """

    def __init__(self, settings: BatchSettings, **parts: Any) -> None:
        self.settings = settings
        self.resources = BatchResources(settings.agent, **parts)
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._inspector: SageInspector | None = None

    def load(self) -> None:
        """Loads every model now."""
        if self.settings.language:
            self.inspector.load(language=self.settings.asks)
        else:
            _ = self.resources.extractor

    @property
    def inspector(self) -> SageInspector:
        """The agent, over this worker's resources."""
        if self._inspector is None:
            from sage_ad.agents.inspector import SageInspector

            self._inspector = SageInspector(resources=self.resources, **self.settings.agent.model_dump())
        return self._inspector

    def look_ahead(self, parts: Iterable[Part]) -> None:
        """Starts to decode the pictures of parts that will be inspected next."""
        self.resources.decoder.will_need(part.image for part in parts)

    def inspect(self, parts: Sequence[Part]) -> Finished:
        """Inspects parts; a part that fails is a row with its error.

        Raises:
            RuntimeError: the GPU was lost; this process can do nothing more on it.
        """
        start = time.perf_counter()
        self.look_ahead(parts)
        self.resources.peers = {part.image: part.peers for part in parts if part.peers is not None}
        self.resources.sizes = {}
        pictures: dict[str, bytes] = {}
        jobs = [self._job(part, pictures) for part in parts]
        model = self.settings.language and self.settings.asks
        outcomes = self.resources.run(jobs, model=model)
        self.resources.forget_views()
        self.resources.decoder.forget(part.image for part in parts)
        down = self.resources.backend.down if model else None
        rows = []
        for part, outcome in zip(parts, outcomes, strict=True):
            if isinstance(outcome, Exception):
                if "CUDA error" in str(outcome):
                    raise outcome
                if down is not None:
                    continue
                rows.append(self._row(part, error=_sentence(part, outcome)))
            elif not math.isfinite(outcome.anomaly_score):
                rows.append(
                    self._row(part, error=f"The score of {part.image} is no number; look at this picture apart.")
                )
            else:
                rows.append(self._row(part, trace=outcome))
        for row in rows:
            # The trace's own seconds hold the time that a part waited for the others.
            row["seconds"] = round((time.perf_counter() - start) / len(parts), 4)
        return Finished(rows, pictures, None if down is None else str(down))

    def _job(self, part: Part, pictures: dict[str, bytes]) -> Callable[[], InspectionTrace]:
        def inspect_one() -> InspectionTrace:
            request = part.request()
            trace = self.inspector.inspect(request) if self.settings.language else self._evidence(request)
            if self.settings.pictures:
                pictures[part.key] = self._picture(trace)
            return trace

        return inspect_one

    def _evidence(self, request: InspectionRequest) -> InspectionTrace:
        """The trace of a part that is only measured: what the agent's first step finds."""
        from sage_ad.agents.inspector import with_taught
        from sage_ad.agents.perception import measure_part
        from sage_ad.vlm.images import expand_references

        start = time.perf_counter()
        request = with_taught(request)
        request = request.model_copy(update={"references": expand_references(request.references)})
        found, summary = measure_part(request, self.settings.agent.model_dump(), self.resources)
        seen, seconds = found["evidence"], round(time.perf_counter() - start, 4)
        return InspectionTrace(
            **about(request),
            anomaly_score=seen["score"],
            regions=seen["regions"],
            **{name: seen[name] for name in MEASURED},
            steps=[TraceStep(name="perceive", seconds=seconds, summary=summary)],
            warnings=found["warnings"],
            model=EVIDENCE_ONLY,
            seconds=seconds,
        )

    def _picture(self, trace: InspectionTrace) -> bytes:
        from sage_ad.vlm.evidence.visualize import evidence_picture

        view = self.resources.view(Path(trace.image), [Path(path) for path in trace.references])
        stream = io.BytesIO()
        evidence_picture(view.image, view.references, view.evidence).save(stream, format="PNG")
        return stream.getvalue()

    def _row(self, part: Part, trace: InspectionTrace | None = None, error: str | None = None) -> Row:
        width, height = self.resources.sizes.get(part.image, (None, None))
        return {**row_of(part, trace, error), "width": width, "height": height, "worker": self.name}


def row_of(part: Part, trace: InspectionTrace | None = None, error: str | None = None) -> Row:
    """A row of `results.parquet`: from the trace of a part, or with the error that stands in its place."""
    row: Row = {
        "part": part.number,
        "key": part.key,
        "id": part.id,
        "image": part.image,
        "width": None,
        "height": None,
        "references": list(part.references),
        "product": part.product,
        "domain": part.domain,
        "error": error,
        "worker": None,
        "picture": None,
        "seconds": None,
    }
    if trace is None:
        return row
    values = trace.model_dump(mode="json")
    same = (
        "product",
        "domain",
        "verdict",
        "anomaly_score",
        "threshold",
        "threshold_from",
        "confidence",
        "defect",
        "explanation",
    )
    for item in values["answers"]:
        item["objections"] = (item.pop("mle") or {}).get("deductions", [])
    return {
        **row,
        **{name: values[name] for name in (*same, "regions", "answers", "warnings", "model")},
        "trace": trace.to_json(indent=None),
    }


def _sentence(part: Part, error: Exception) -> str:
    """The error of a part in one sentence; one that nobody foresaw is named by its kind."""
    if isinstance(error, SageError):
        return str(error)
    return f"The inspection of {part.image} failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})."
