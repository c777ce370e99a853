"""Parts without references are compared with the other parts of their batch before any of them is inspected.

Their features are computed by worker processes and kept as float16 in the folder of the batch, so that a batch that was
stopped goes on and memory does not grow with it; comparing them is matrix products, done here in threads.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sage_ad.agents.batch.local_engine import LocalEngine
from sage_ad.agents.batch.manifest import Part
from sage_ad.agents.batch.progress import Progress
from sage_ad.agents.batch.store import Row
from sage_ad.agents.batch.worker import BatchSettings, Finished
from sage_ad.agents.peers import judged, peer_groups, write_features
from sage_ad.agents.shared_calls import BatchResources
from sage_ad.vlm.errors import BackendError

if TYPE_CHECKING:
    from sage_ad.vlm.evidence.peers import PeerEvidence

FEATURES = "features"
"""Folder, inside the folder of the batch, of the parts' features while they are compared."""

ENCODED_TOGETHER = 8
"""Pictures that a worker encodes at a time."""


class FeatureWorker:
    """Writes the features of parts into a folder; a picture that cannot be read gets none, and its row says why."""

    def __init__(self, settings: BatchSettings, folder: Path) -> None:
        self._resources, self._folder = BatchResources(settings.agent), folder

    def load(self) -> None:
        """Loads the encoder."""
        _ = self._resources.extractor

    def look_ahead(self, parts: Sequence[Part]) -> None:
        """Starts to decode the pictures of parts that come next."""
        self._resources.decoder.will_need(part.image for part in parts)

    def inspect(self, parts: Sequence[Part]) -> Finished:
        """Writes the features of these parts."""
        rows: list[Row] = []
        for part in parts:
            try:
                write_features(_file(self._folder, part), Path(part.image), self._resources)
            except OSError as error:
                why = f"Features cannot be written to {self._folder} ({error.strerror or error}); free space and add --resume."
                return Finished(rows, stopped=why)
            except Exception as error:
                if "CUDA error" in str(error):
                    raise
                rows.append({"key": part.key, "error": str(error)})
            else:
                rows.append({"key": part.key, "error": None})
        self._resources.decoder.forget(part.image for part in parts)
        return Finished(rows)


def _file(folder: Path, part: Part) -> Path:
    return folder / f"{part.key}.npy"


def _feature_worker(settings: BatchSettings, folder: Path) -> FeatureWorker:
    from sage_ad.vlm.commandline import quiet_libraries

    quiet_libraries()
    return FeatureWorker(settings, folder)


def compared_with_peers(
    parts: Sequence[Part],
    todo: Sequence[Part],
    folder: Path,
    settings: BatchSettings,
    workers: int,
    say: Callable[[str], None] | None,
) -> list[Part]:
    """The parts of `todo`, those without references with what tells them from the other parts of the batch.

    Args:
        parts: all parts of the batch, finished ones too: each is compared with the same others however often it is resumed.
        todo: parts that will be inspected now.
        folder: folder of the batch.
        settings, workers: as for the inspection.
        say: is given lines of progress.

    Raises:
        BackendError: the encoder cannot be loaded, or the features cannot be written.
    """
    waiting = {part.key for part in todo}
    groups = [group for group in peer_groups(parts) if not waiting.isdisjoint(part.key for part in group)]
    if not groups:
        return list(todo)
    place = folder / FEATURES
    _encode([part for group in groups for part in group], place, settings, workers, say)
    found: dict[str, PeerEvidence | None] = {}
    for group in groups:
        there = [part for part in group if _file(place, part).exists()]
        if say:
            say(f"comparing {len(there)} parts without references with one another")
        found |= dict(zip((part.key for part in there), judged([_file(place, part) for part in there]), strict=True))
    return [replace(part, peers=found.get(part.key)) for part in todo]


def forget_features(folder: Path) -> None:
    """Removes the features of a batch that is complete."""
    if (folder / FEATURES).exists():
        shutil.rmtree(folder / FEATURES)


def _encode(
    parts: Sequence[Part], folder: Path, settings: BatchSettings, workers: int, say: Callable[[str], None] | None
) -> None:
    left = [part for part in parts if not _file(folder, part).exists()]
    if not left:
        return
    engine = LocalEngine(
        settings,
        workers=min(workers, -(-len(left) // ENCODED_TOGETHER)),
        chunk=ENCODED_TOGETHER,
        make=functools.partial(_feature_worker, folder=folder),
    )
    progress = Progress(len(left), None if say is None else lambda line: say(f"encoding: {line}"))
    with closing(engine.run(left)) as work:
        for done in work:
            progress.add(done.rows)
            if done.stopped:
                raise BackendError(done.stopped)
