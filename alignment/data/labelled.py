"""Labelled parts for stage 1, from wherever they come: inspection sets, drawn parts, defects pasted on real ones.

A `Picture` says how a picture is made and has a key that never changes, so that its frozen visual features are computed
once and kept; nothing is decoded or drawn before `load`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL import Image

    from sage_ad.alignment.synthetic.generate import SyntheticSample
    from sage_ad.evaluation.datasets import InspectionDataset, Sample

SYNTHETIC_DOMAINS = {
    "machined disc": "machining",
    "perforated plate": "sheet-metal",
    "screw": "fasteners",
    "gear": "gears-bearings",
    "bolted cover": "fasteners",
    "granular casting": "casting",
    "circuit board": "bare-pcb",
    "solar cell": "photovoltaics",
    "woven fabric": "textiles",
    "leather": "leather",
    "glass bottle": "glass-containers",
    "ceramic tile": "ceramics",
    "capsule": "pharmaceuticals",
}
"""Knowledge pack of each drawn product."""


@dataclass(frozen=True)
class Picture:
    """How a picture is made.

    Attributes:
        kind: a "file", a drawn test image or "reference", or a file with a defect "pasted" onto it.
        path: the file.
        seed, product, defect, size: of what is drawn or pasted (`sage_ad.alignment.synthetic.generate`).
    """

    kind: Literal["file", "drawn", "reference", "pasted"]
    path: str = ""
    seed: int = 0
    product: str = ""
    defect: str | None = None
    size: int = 256

    @property
    def key(self) -> str:
        """A digest of everything that decides the pixels, to keep features under."""
        stamp = ""
        if self.path:
            status = Path(self.path).stat()
            stamp = f"{status.st_size}:{status.st_mtime_ns}"
        return hashlib.sha256(f"{self!r}|{stamp}".encode()).hexdigest()[:24]

    def load(self) -> Image.Image:
        """Reads or draws it; raises `InputError` for a file that is no picture."""
        from sage_ad.alignment.synthetic.generate import paste_defect
        from sage_ad.vlm.images import load_image

        if self.kind == "file":
            return load_image(Path(self.path))
        if self.kind == "pasted":
            return paste_defect(load_image(Path(self.path)), self.seed, defect=self.defect or "any").image
        pair = _drawn(self.seed, self.product, self.defect, self.size)
        if self.kind == "reference" and pair.reference is not None:
            return pair.reference
        return pair.image


@lru_cache(maxsize=64)
def _drawn(seed: int, product: str, defect: str | None, size: int) -> SyntheticSample:
    from sage_ad.alignment.synthetic.generate import generate

    return generate(seed, product=product, defect=defect, size=size)


@dataclass(frozen=True)
class LabelledPart:
    """One part with what is known about it.

    Attributes:
        picture: of the part.
        reference: of a good part of the same kind; None where there is none.
        product: the product in words.
        anomalous: the label.
        defect: the defect in words; None for a good part and where the label names no kind.
        place: one of `sage_ad.vlm.places.PLACES`; None where nothing marks the place.
        group: name of the image; its five questions share it.
        category: what must not be in training and test at once.
        domain: knowledge pack, if known.
        source: "real", "drawn" or "pasted".
        description: what stands out, in measured words; empty where nothing was measured or nothing stands out.
        names: taught names that the defect may bear, with their probabilities, the likeliest first.
    """

    picture: Picture
    reference: Picture | None
    product: str
    anomalous: bool
    defect: str | None
    place: str | None
    group: str
    category: str
    domain: str | None = None
    source: Literal["real", "drawn", "pasted"] = "real"
    description: str = ""
    names: tuple[tuple[str, float], ...] = ()


def real_parts(dataset: InspectionDataset, *, seed: int = 0, limit: int | None = None) -> Iterator[LabelledPart]:
    """Parts of a labelled set, each with its own reference or a good part of its category drawn by seed.

    Args:
        dataset: the set; images without a label are left out.
        seed: chooses references, and which images where there is a limit.
        limit: most good and most defective images of a category.
    """
    from sage_ad.evaluation.datasets import place_of_sample
    from sage_ad.evaluation.questions import defect_words, product_words

    for category in dataset.categories:
        goods = dataset.normals(category)
        for sample in _limited([s for s in dataset.samples(category) if s.anomalous is not None], seed, limit):
            yield LabelledPart(
                picture=Picture("file", str(sample.image)),
                reference=_reference(sample, goods, seed),
                product=product_words(category),
                anomalous=bool(sample.anomalous),
                defect=defect_words(sample.defect) if sample.anomalous else None,
                place=place_of_sample(sample) if sample.anomalous else None,
                group=sample.id,
                category=category,
            )


def pasted_parts(dataset: InspectionDataset, *, seed: int = 0, limit: int = 100) -> Iterator[LabelledPart]:
    """Good parts of a labelled set with a defect pasted onto each; at most `limit` of a category."""
    from sage_ad.alignment.synthetic.defects import PAINTERS
    from sage_ad.alignment.synthetic.generate import paste_defect
    from sage_ad.evaluation.questions import product_words
    from sage_ad.vlm.images import load_image

    names = list(PAINTERS)
    for category in dataset.categories:
        goods = dataset.normals(category)
        for sample in _limited(goods, seed, limit):
            rng = seeded(seed, "pasted", sample.id)
            picture = Picture("pasted", str(sample.image), rng.randrange(2**31), defect=rng.choice(names))
            # The place is read off the very picture that will be loaded.
            made = paste_defect(load_image(sample.image), picture.seed, defect=picture.defect or "any")
            yield LabelledPart(
                picture=picture,
                reference=_reference(sample, goods, seed),
                product=product_words(category),
                anomalous=True,
                defect=picture.defect,
                place=made.place,
                group=f"pasted/{sample.id}",
                category=category,
                source="pasted",
            )


def drawn_parts(count: int, *, seed: int = 0, size: int = 256, good: float = 0.5) -> Iterator[LabelledPart]:
    """Synthetic parts, a share `good` of them without a defect; part i does not depend on the others."""
    from sage_ad.alignment.synthetic.generate import DEFECTS, MISSING
    from sage_ad.alignment.synthetic.parts import PARTS

    products = list(PARTS)
    for i in range(count):
        rng = seeded(seed, "drawn", i)
        product, number = rng.choice(products), rng.randrange(2**31)
        possible = [d for d in DEFECTS if d != MISSING or product not in _WHOLE]
        asked = None if rng.random() < good else rng.choice(possible)
        sample = _drawn(number, product, asked, size)
        yield LabelledPart(
            picture=Picture("drawn", "", number, product, asked, size),
            reference=Picture("reference", "", number, product, asked, size),
            product=product,
            anomalous=sample.anomalous,
            defect=f"missing {sample.detail}" if sample.detail else sample.defect,
            place=sample.place,
            group=f"drawn/{seed}/{i}",
            category=f"drawn {product}",
            domain=SYNTHETIC_DOMAINS[product],
            source="drawn",
        )


_WHOLE = {"screw", "woven fabric", "ceramic tile", "glass bottle", "granular casting", "capsule", "leather"}
"""Drawn products of which nothing can be missing."""


def seeded(*words: object) -> random.Random:
    """A generator that depends on these words alone (and not on the process, as `hash` would)."""
    return random.Random(hashlib.sha256("\n".join(map(str, words)).encode()).digest())


def _reference(sample: Sample, goods: list[Sample], seed: int) -> Picture | None:
    if sample.reference is not None:
        return Picture("file", str(sample.reference))
    others = [good for good in goods if good.image != sample.image]
    return Picture("file", str(seeded(seed, "reference", sample.id).choice(others).image)) if others else None


def _limited(samples: list[Sample], seed: int, limit: int | None) -> list[Sample]:
    if limit is None:
        return samples
    kept: list[Sample] = []
    for state in (False, True):
        own = [s for s in samples if bool(s.anomalous) == state]
        kept += sorted(own, key=lambda s: seeded(seed, "kept", s.id).random())[:limit]
    return kept
