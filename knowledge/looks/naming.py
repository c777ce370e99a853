"""What an inspection asks of the looks of a pack: references of a known product, and names for what stands out."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from sage_ad.knowledge.looks.pictures import GOOD, Look, content_name, inside, looks_folder, product_names, read_looks
from sage_ad.knowledge.store.packs import Pack
from sage_ad.knowledge.store.product_match import name_key
from sage_ad.vlm.errors import BackendError, InputError
from sage_ad.vlm.files import write_whole
from sage_ad.vlm.paths import cache_home, data_home

if TYPE_CHECKING:
    from PIL import Image

    from sage_ad.knowledge.looks.index import LooksIndex, Naming
    from sage_ad.vlm.evidence.extractor import Evidence, EvidenceExtractor
    from sage_ad.vlm.evidence.region_features import RegionFeatures

MAX_REFERENCES = 8
"""Good looks used as references at most: more cost time and hardly change where a defect is found."""


def looks_of(domain: str, product: str) -> list[Look]:
    """Looks of one product, shown under any name that its pack has for it.

    Raises:
        InputError: when the list of looks or the `pack.yaml` cannot be read.
    """
    looks = read_looks(looks_folder(domain))
    wanted = product_names(domain, product) if looks else set()
    return [look for look in looks if name_key(look.product) in wanted]


def taught(domain: str, product: str) -> dict[str, int]:
    """How many looks of a product there are, by what they show ("good", or the defect's name)."""
    looks = looks_of(domain, product)
    return dict(Counter(_first_names(look.defect or GOOD for look in looks)))


def _first_names(defects: Iterable[str]) -> list[str]:
    """Each name as it was first written: "Cracks" and "crack" are one defect."""
    names: dict[str, str] = {}
    return [names.setdefault(name_key(defect), defect) for defect in defects]


def taught_as(domain: str, product: str, picture: Path) -> str | None:
    """The defect as which a product's very picture was taught; None if it was not."""
    from sage_ad.vlm.images import file_of

    looks = looks_of(domain, product)
    own = content_name(file_of(picture).read_bytes()) if looks else ""
    return next((look.defect for look in looks if Path(look.file).stem == own), None)


def unnamed_product(pack: Pack, product: str) -> str | None:
    """A sentence that says so if a pack names products, and this one not; looks then serve that very name only."""
    known = {name_key(name) for term in pack.products for name in term.names}
    if not known or name_key(product) in known:
        return None
    return f"The pack {pack.name} names no product {product!r}; these pictures serve parts of that very name only."


def card_name(pack: Pack, defect: str) -> tuple[str, str | None]:
    """The name under which a pack's card knows a defect, and a sentence that says so where that is another one.

    A name that no card has stays as it is; the sentence says that, if the pack has cards.
    """
    defect, key = " ".join(defect.split()), name_key(defect)
    first = {name_key(name): term.name for term in reversed(pack.defects) for name in reversed(term.names)}
    first |= {name_key(term.name): term.name for term in pack.defects}
    if key not in first:
        note = f"No card of the pack {pack.name} has the name {defect!r}, so nothing but its pictures tells of it; write a card."
        return defect, note if first else None
    name = first[key]
    if name.casefold() == defect.casefold():
        return name, None
    return (
        name,
        f"{defect!r} is another name of {name!r} in the pack {pack.name}; its pictures are kept under {name!r}.",
    )


def named_twice(pack: Pack, defects: Iterable[str]) -> list[str]:
    """A sentence for each defect of a pack that was taught under several of its names: its looks then compete."""
    taught = list(defects)
    shared = [[own for own in taught if name_key(own) in set(map(name_key, term.names))] for term in pack.defects]
    return [
        f"{' and '.join(map(repr, names))} name one defect of the pack {pack.name}, and are told apart; teach it under one name."
        for names in shared
        if len(names) > 1
    ]


def taught_domain(product: str) -> str | None:
    """The user's pack that was shown pictures of a product; None if none was.

    Raises:
        InputError: two packs were, or a list of looks cannot be read.
    """
    folders = sorted((data_home() / "domains").glob("*/looks"))
    found = [folder.parent.name for folder in folders if looks_of(folder.parent.name, product)]
    if len(found) > 1:
        raise InputError(f"The packs {' and '.join(found)} both hold looks of {product!r}; name one as the domain.")
    return found[0] if found else None


def good_references(domain: str | None, product: str | None) -> list[Path]:
    """Pictures of good parts of a product, at most `MAX_REFERENCES`; none if none was shown. No domain: the taught one."""
    if not product or (domain := domain or taught_domain(product)) is None:
        return []
    folder = looks_folder(domain)
    return [folder / look.file for look in looks_of(domain, product) if look.defect is None][:MAX_REFERENCES]


def load_index(
    domain: str, product: str, extractor: EvidenceExtractor, *, prior: Sequence[float], boxes: bool = False
) -> LooksIndex | None:
    """The taught defects of a product, ready for comparison; None if no defect was shown.

    The region of a look is found against the good looks (without a reference if there is none), as that of an inspected
    part is. Vectors are kept in the cache folder by content of the pictures and name of the encoder.

    Args:
        domain: the pack.
        product: the product.
        extractor: holds the encoder that reads the pictures to be named, too.
        prior: weights of the vectors (`sage_ad.knowledge.looks.index.PRIOR`).
        boxes: takes the box of a look that has one in place of the region that is found. That helps to name a region that
            somebody pointed at, and harms where it was found (docs/looks.md): like must be compared with like.
    """
    from sage_ad.knowledge.looks.index import LooksIndex

    taught = [look for look in looks_of(domain, product) if look.defect is not None]
    if not taught:
        return None
    features = _vectors(looks_folder(domain), taught, good_references(domain, product), extractor, boxes)
    return LooksIndex(features, _first_names(look.defect or "" for look in taught), prior)


def candidates(
    domain: str,
    product: str,
    image: Image.Image,
    evidence: Evidence | None,
    extractor: EvidenceExtractor,
    *,
    references: Sequence[Image.Image] = (),
    box: tuple[int, int, int, int] | None = None,
) -> Naming | None:
    """Names for what stands out in a picture, from the taught looks of its product; None if no defect was shown.

    Args:
        domain: the pack.
        product: the product.
        image: the part.
        evidence: what was measured on it; None only with a box.
        extractor: the extractor that measured it.
        references: good parts, which tell whether the region is darker or lighter.
        box: x0, y0, x1, y1 of the region in pixels; None takes the most conspicuous one.

    Raises:
        InputError: the box does not lie in the picture.
        ValueError: there is neither evidence nor a box.
    """
    from sage_ad.knowledge.looks.index import PRIOR, PRIOR_WITHOUT_REFERENCE

    if box is not None and not inside(box, image.size):
        raise InputError(f"The box {box} does not lie in the picture ({image.width} x {image.height} pixels).")
    located = box is not None or (evidence is not None and evidence.threshold_from == "references")
    prior = PRIOR if located else PRIOR_WITHOUT_REFERENCE
    if not references:
        prior = (*prior[:-1], 0.0)
    index = load_index(domain, product, extractor, prior=prior, boxes=box is not None)
    if index is None:
        return None
    from sage_ad.vlm.evidence.region_features import region_features

    heat = None if evidence is None else evidence.distances.cpu().numpy()
    return index.name(region_features(extractor.encoder, image, heat=heat, box=box, references=references))


def _vectors(
    folder: Path, looks: Sequence[Look], good: Sequence[Path], extractor: EvidenceExtractor, boxes: bool
) -> list[RegionFeatures]:
    """Vectors of looks, from the cache where it has them."""
    from sage_ad.vlm.evidence.region_features import VERSION, RegionFeatures, region_features
    from sage_ad.vlm.images import load_image

    bank, shown = None, None
    references = [_digest(path) for path in good]
    settings = [VERSION, extractor.settings.encoder, extractor.settings.size]
    found = []
    for look in looks:
        box = look.box if boxes else None
        about = [_digest(folder / look.file), box, references, settings]
        key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
        path = cache_home() / "looks" / f"{key}.npz"
        vectors = _read(path)
        if vectors is None:
            image = load_image(folder / look.file)
            heat, shown = None, shown or [load_image(file) for file in good]
            if box is None:
                if bank is None and shown:
                    bank = extractor.prepare(shown)
                heat = extractor.extract(image, bank).distances.cpu().numpy()
            vectors = region_features(extractor.encoder, image, heat=heat, box=box, references=shown)
            content = io.BytesIO()
            np.savez(content, **vectors._asdict())
            try:
                write_whole(path, content.getvalue())
            except OSError as error:
                raise BackendError(
                    f"{path} cannot be written ({error.strerror}); make room, or set SAGE_CACHE to another folder."
                ) from None
        found.append(RegionFeatures(*vectors))
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path) -> RegionFeatures | None:
    """Vectors of a cached file; None if it is missing or cannot be read (it is then made again)."""
    from sage_ad.vlm.evidence.region_features import RegionFeatures

    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return RegionFeatures(*(stored[name] for name in RegionFeatures._fields))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
