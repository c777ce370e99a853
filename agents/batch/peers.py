"""Parts without references are compared with the other parts of their batch before any of them is inspected.

Their features are computed by worker processes and kept as float16 in the folder of the batch, so that a batch that was
stopped goes on and memory does not grow with it; comparing them is matrix products, done here in threads.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sage_ad.agents.batch.local_engine import LocalEngine, cores
from sage_ad.agents.batch.manifest import Part, peer_groups
from sage_ad.agents.batch.progress import Progress
from sage_ad.agents.batch.store import Row
from sage_ad.agents.batch.worker import BatchSettings, Finished
from sage_ad.agents.shared_calls import Decoder
from sage_ad.vlm.errors import BackendError
from sage_ad.vlm.files import whole_file

if TYPE_CHECKING:
    import torch

    from sage_ad.vlm.evidence.extractor import EvidenceExtractor
    from sage_ad.vlm.evidence.peers import PeerEvidence

FEATURES = "features"
"""Folder, inside the folder of the batch, of the parts' features while they are compared."""

ENCODED_TOGETHER = 8
"""Pictures that a worker encodes at a time."""


class FeatureWorker:
    """Writes the features of parts into a folder; a picture that cannot be read gets none, and its row says why."""

    def __init__(self, settings: BatchSettings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._decoder = Decoder()
        self._extractor: EvidenceExtractor | None = None

    def load(self) -> None:
        """Loads the encoder."""
        from sage_ad.agents.resources import Resources

        self._extractor = Resources(self._settings.agent).extractor

    def look_ahead(self, parts: Sequence[Part]) -> None:
        """Starts to decode the pictures of parts that come next."""
        self._decoder.will_need(part.image for part in parts)

    def inspect(self, parts: Sequence[Part]) -> Finished:
        """Writes the features of these parts."""
        rows: list[Row] = []
        for part in parts:
            try:
                features = self._features(Path(part.image))
            except Exception as error:
                if "CUDA error" in str(error):
                    raise
                rows.append({"key": part.key, "error": str(error)})
                continue
            try:
                with whole_file(_file(self._folder, part)) as stream:
                    np.save(stream, features)
            except OSError as error:
                why = f"Features cannot be written to {self._folder} ({error.strerror or error}); free space and add --resume."
                return Finished(rows, stopped=why)
            rows.append({"key": part.key, "error": None})
        self._decoder.forget(part.image for part in parts)
        return Finished(rows)

    def _features(self, path: Path) -> np.ndarray:
        from sage_ad.vlm.images import in_range, shared_brightness

        assert self._extractor is not None
        picture = in_range(self._decoder.take(path), path, shared_brightness([path]))
        return self._extractor.features_of(picture).half().cpu().numpy()


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


def judged(files: Sequence[Path]) -> list[PeerEvidence | None]:
    """What tells each part from the others, from the files of their features; None for all if they are too few."""
    from sage_ad.vlm.evidence.extractor import TOP_SHARE
    from sage_ad.vlm.evidence.patch_matching import top_mean
    from sage_ad.vlm.evidence.peers import FEWEST, PeerEvidence, batch_threshold

    contents = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    if len(set(contents)) < FEWEST:
        return [None] * len(files)
    known = _peer_maps(files, contents)
    maps = [known[content] for content in contents]
    scores = [float(top_mean(distances, TOP_SHARE)) for distances in maps]
    batch = batch_threshold(scores)
    return [
        PeerEvidence(distances.half().numpy(), score, batch.threshold, batch.spread, batch.reason, batch.warnings)
        for distances, score in zip(maps, scores, strict=True)
    ]


def _peer_maps(files: Sequence[Path], contents: Sequence[str]) -> dict[str, torch.Tensor]:
    """(h, w) distances of each content to its peers; holds the maps of the few parts whose peers are not all seen yet."""
    import torch

    from sage_ad.vlm.evidence.encoders import one_thread
    from sage_ad.vlm.evidence.peers import draw_peers, nearest_mean

    drawn = draw_peers(contents)
    first = {content: index for index, content in reversed(list(enumerate(contents)))}
    order = [first[content] for content in sorted(first)]

    def compare(index: int) -> tuple[tuple[int, int], list[torch.Tensor], dict[int, torch.Tensor]]:
        """Both ways, with those that come later in the order: the earlier ones have done it."""
        own, there, back = _read(files[index]), [], {}
        for other in drawn[index]:
            if contents[other] > contents[index]:
                similarity = own.flatten(0, 1) @ _read(files[other]).flatten(0, 1).T
                there.append((1 - similarity.amax(dim=1)).half())
                back[other] = (1 - similarity.amax(dim=0)).half()
        return (own.shape[0], own.shape[1]), there, back

    waiting: dict[int, list[torch.Tensor]] = {index: [] for index in order}
    found = {}
    with one_thread(), ThreadPoolExecutor(cores()) as pool:
        try:
            for index, (shape, there, back) in zip(order, pool.map(compare, order), strict=True):
                for other, distances in back.items():
                    waiting[other].append(distances)
                maps = torch.stack([*waiting.pop(index), *there]).float()
                found[contents[index]] = nearest_mean(maps).reshape(shape)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def _read(file: Path) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.load(file)).float()
