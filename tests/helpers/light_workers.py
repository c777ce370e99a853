"""Worker processes that load no models and die at pictures with telling names: for tests of what holds a batch together."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from sage_ad.agents.batch.manifest import Part
from sage_ad.agents.batch.worker import BatchSettings, Finished, row_of
from sage_ad.evaluation.inspection import InspectionTrace
from sage_ad.vlm.errors import InputError


class LightWorker:
    """Gives every part a trace without looking; a picture called "deadly" kills it, "fatal once" does so one time."""

    def load(self) -> None:
        """Loads nothing."""

    def look_ahead(self, parts: Sequence[Part]) -> None:
        """Decodes nothing."""

    def inspect(self, parts: Sequence[Part]) -> Finished:
        """A row for each part, after a moment."""
        rows = []
        for part in parts:
            name = Path(part.image).name
            mark = Path(part.image + ".died")
            if name.startswith("deadly") or (name.startswith("fatal once") and not mark.exists()):
                mark.touch()
                os.kill(os.getpid(), 9)
            if name.startswith("gpu lost") and not mark.exists():
                mark.touch()
                raise RuntimeError("CUDA error: device-side assert triggered")
            time.sleep(0.01)
            trace = InspectionTrace(
                image=part.image, anomaly_score=0.1, threshold=0.2, threshold_from="builtin", verdict="normal",
                model="light", seconds=0.0,
            )  # fmt: skip
            rows.append({**row_of(part, trace), "worker": str(os.getpid())})
        return Finished(rows)


def light_worker(settings: BatchSettings) -> LightWorker:
    """Makes a `LightWorker`, in a process or an actor of Ray."""
    return LightWorker()


def cannot_load(settings: BatchSettings) -> LightWorker:
    """A worker whose model does not exist."""
    raise InputError("There is no model 'x'; give another.")


def dies_loading(settings: BatchSettings) -> LightWorker:
    """A worker that runs out of memory while it loads."""
    os.kill(os.getpid(), 9)
    raise AssertionError("killed")


class PickyWorker(LightWorker):
    """A `LightWorker` that reads its pictures: one that cannot be read is a row with an error."""

    def inspect(self, parts: Sequence[Part]) -> Finished:
        """A row for each part."""
        from sage_ad.vlm.images import load_image

        rows = []
        for part in parts:
            try:
                load_image(part.image)
                rows += super().inspect([part]).rows
            except InputError as error:
                rows.append(row_of(part, error=str(error)))
        return Finished(rows)


def picky_worker(settings: BatchSettings) -> PickyWorker:
    """Makes a `PickyWorker` in a process."""
    return PickyWorker()
