"""Parts without references compared with one another: their features in files, so that memory does not grow with them.

A batch keeps the files in its folder and computes them in worker processes (`sage_ad.agents.batch.peers`);
`SageInspector.inspect_many` in a temporary folder, in this process.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from sage_ad.vlm.devices import cores
from sage_ad.vlm.errors import InputError, SageError
from sage_ad.vlm.files import whole_file

if TYPE_CHECKING:
    import torch

    from sage_ad.agents.shared_calls import BatchResources
    from sage_ad.evaluation.inspection import InspectionRequest
    from sage_ad.vlm.evidence.peers import PeerEvidence


class Listed(Protocol):
    """What a request and a part of a batch have in common."""

    @property
    def image(self) -> Any: ...
    @property
    def references(self) -> Sequence[Any]: ...
    @property
    def product(self) -> str | None: ...
    @property
    def domain(self) -> str | None: ...


P = TypeVar("P", bound=Listed)


def peer_groups(parts: Sequence[P]) -> list[list[P]]:
    """Parts that judge one another: those of one product, if there are enough of them and it was not taught good looks.

    Raises:
        InputError: one picture is listed under two products.
    """
    from sage_ad.knowledge.looks.naming import good_references
    from sage_ad.vlm.evidence.peers import FEWEST

    taught = cache(good_references)
    groups: dict[str | None, list[P]] = {}
    product: dict[Any, str | None] = {}
    for part in parts:
        if not part.references and not taught(part.domain, part.product):
            if product.setdefault(part.image, part.product) != part.product:
                raise InputError(
                    f"{part.image} is listed as {product[part.image]!r} and as {part.product!r}; without references it can "
                    "only be compared with the parts of one product."
                )
            groups.setdefault(part.product, []).append(part)
    return [group for group in groups.values() if len(group) >= FEWEST]


def write_features(file: Path, image: Path, resources: BatchResources) -> None:
    """Writes the features of a picture, (h, w, C) float16.

    Raises:
        InputError: the picture cannot be read.
        OSError: the file cannot be written.
    """
    from sage_ad.vlm.images import in_range, shared_brightness

    picture = in_range(resources.decoder.take(image), image, shared_brightness([image]))
    features = resources.extractor.features_of(picture).half().cpu().numpy()
    with whole_file(file) as stream:
        np.save(stream, features)


def compared(requests: Sequence[InspectionRequest], resources: BatchResources, folder: Path) -> dict[str, PeerEvidence]:
    """By picture, what tells the parts without references from the others of their product.

    A picture that cannot be read is compared with none; its inspection says why.

    Args:
        requests: the parts.
        resources: encode them.
        folder: an empty folder for their features, half a megabyte each, which are read while the parts are inspected.
    """
    found: dict[str, PeerEvidence] = {}
    for group in peer_groups(requests):
        images = list(dict.fromkeys(str(request.image) for request in group))
        resources.decoder.will_need(images)
        files: dict[str, Path] = {}
        for image in images:
            file = folder / f"{len(found) + len(files)}.npy"
            try:
                write_features(file, Path(image), resources)
            except SageError:
                continue
            files[image] = file
        evidence = judged(list(files.values()))
        found |= {image: own for image, own in zip(files, evidence, strict=True) if own is not None}
    return found


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
        PeerEvidence(distances.half().numpy(), score, batch.threshold, batch.spread, batch.reason, batch.warnings, file)
        for distances, score, file in zip(maps, scores, files, strict=True)
    ]


def _peer_maps(files: Sequence[Path], contents: Sequence[str]) -> dict[str, torch.Tensor]:
    """(h, w) distances of each content to its peers; holds the maps of the few parts whose peers are not all seen yet."""
    import torch

    from sage_ad.vlm.evidence.encoders import one_thread
    from sage_ad.vlm.evidence.peers import draw_peers, nearest_mean

    drawn = draw_peers(contents)
    first = {content: index for index, content in reversed(list(enumerate(contents)))}
    order = [first[content] for content in sorted(first)]
    buffers = threading.local()

    def compare(index: int) -> tuple[tuple[int, int], list[torch.Tensor], dict[int, torch.Tensor]]:
        """Both ways, with those that come later in the order: the earlier ones have done it."""
        own, there, back = _read(files[index]), [], {}
        # One buffer a thread: small results kept between large ones that are freed would scatter the memory, which grew by
        # 4 MB a part.
        similarity = buffers.__dict__.setdefault("similarity", torch.empty(0))
        for other in drawn[index]:
            if contents[other] > contents[index]:
                torch.mm(own.flatten(0, 1), _read(files[other]).flatten(0, 1).T, out=similarity.resize_(0))
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
