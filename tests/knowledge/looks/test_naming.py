"""Teaching by showing, with drawn cloth: references and names come from the pack, with the real encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from sage_ad.knowledge.looks.index import PRIOR
from sage_ad.knowledge.looks.naming import candidates, good_references, load_index, named_twice, taught_domain
from sage_ad.knowledge.looks.naming import taught as count_taught
from sage_ad.knowledge.looks.pictures import add_looks
from sage_ad.knowledge.store.packs import Pack
from sage_ad.vlm.evidence.extractor import EvidenceExtractor
from sage_ad.vlm.paths import data_home

SIDE = 192
PLACES = ((60, 70), (120, 60), (90, 120), (130, 130))


def cloth(seed: int, defect: str | None = None, at: tuple[int, int] = (0, 0)) -> Image.Image:
    """Woven cloth, good or with a dark stain, a bright scratch, or a grid of red dots."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    weave = 150 + 18 * np.sin(x / 2.5) * np.sin(y / 2.5) + rng.normal(0, 4, (SIDE, SIDE))
    image = Image.fromarray(np.clip(weave, 0, 255).astype(np.uint8)).convert("RGB")
    if defect is None:
        return image
    layer = image.copy()
    draw = ImageDraw.Draw(layer)
    if defect == "stain":
        draw.ellipse((at[0] - 22, at[1] - 18, at[0] + 22, at[1] + 18), fill=(70, 60, 50))
        layer = layer.filter(ImageFilter.GaussianBlur(3))
    elif defect == "scratch":
        draw.line((at[0] - 40, at[1] - 20, at[0] + 40, at[1] + 20), fill=(250, 250, 250), width=3)
    else:
        for i in range(-2, 3):
            for j in range(-2, 3):
                draw.rectangle(
                    (at[0] + 12 * i, at[1] + 12 * j, at[0] + 12 * i + 5, at[1] + 12 * j + 5), fill=(230, 20, 20)
                )
    return layer


def box(at: tuple[int, int]) -> tuple[int, int, int, int]:
    return at[0] - 40, at[1] - 30, at[0] + 40, at[1] + 30


@pytest.fixture(scope="module")
def extractor() -> EvidenceExtractor:
    return EvidenceExtractor()


@pytest.fixture
def taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pack that was shown two good parts, and two examples each of stain (with boxes) and scratch (without)."""
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "cache"))
    files: dict[str, list[Path]] = {"good": [], "stain": [], "scratch": []}
    for kind, found in files.items():
        for number in range(2):
            found.append(tmp_path / f"{kind}-{number}.png")
            cloth(number, None if kind == "good" else kind, PLACES[number]).save(found[-1])
    add_looks("textiles", "Woven cloth", files["good"], defect=None)
    add_looks("textiles", "Woven cloth", files["stain"], defect="stain", boxes=[box(at) for at in PLACES[:2]])
    add_looks("textiles", "woven  Cloth", files["scratch"], defect="scratch")
    return tmp_path / "cache" / "looks"


def named(extractor: EvidenceExtractor, kind: str, seed: int):  # type: ignore[no-untyped-def]
    from sage_ad.vlm.images import load_image

    good = [load_image(path) for path in good_references("textiles", "woven cloth")]
    bank = extractor.prepare(good)
    image = cloth(seed, kind, PLACES[seed % 2 + 2])
    return candidates("textiles", "WOVEN CLOTH", image, extractor.extract(image, bank), extractor, references=good)


def test_defects_are_named_as_they_were_taught(taught: Path, extractor: EvidenceExtractor) -> None:
    for kind in ("stain", "scratch"):
        naming = named(extractor, kind, 10)
        assert naming is not None
        assert (naming.candidates[0].name, naming.candidates[0].examples) == (kind, 2)


def test_a_kind_that_was_not_taught_is_less_like_the_taught_ones(taught: Path, extractor: EvidenceExtractor) -> None:
    dots, stain, scratch = (named(extractor, kind, 11) for kind in ("dots", "stain", "scratch"))
    assert dots.unknown > max(stain.unknown, scratch.unknown)


def test_the_region_to_be_named_can_be_pointed_at(taught: Path, extractor: EvidenceExtractor) -> None:
    image = cloth(12, "stain", (45, 40))
    ImageDraw.Draw(image).line((100, 140, 180, 180), fill=(250, 250, 250), width=3)
    evidence, good = extractor.extract(image), [cloth(0)]
    for name, where in (("stain", box((45, 40))), ("scratch", box((140, 160)))):
        naming = candidates("textiles", "woven cloth", image, evidence, extractor, references=good, box=where)
        assert naming is not None
        assert naming.candidates[0].name == name


def test_a_box_counts_only_where_the_region_is_pointed_at(taught: Path, extractor: EvidenceExtractor) -> None:
    """What was found is compared with what was found: the taught stains keep one vector for each way."""
    assert named(extractor, "stain", 10) is not None
    found = set(taught.iterdir())
    evidence = extractor.extract(image := cloth(12, "stain", (45, 40)))
    assert candidates("textiles", "woven cloth", image, evidence, extractor, box=box((45, 40))) is not None
    assert len(set(taught.iterdir()) - found) == 2


def test_a_plural_is_no_other_defect_and_a_second_name_is_said_to_be_one(taught: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("Stains", "oil spot")):
        cloth(7 + number, "stain", PLACES[0]).save(tmp_path / f"{name}.png")
        add_looks("textiles", "woven cloth", [tmp_path / f"{name}.png"], defect=name)
    counts = count_taught("textiles", "woven cloth")
    assert counts == {"good": 2, "stain": 3, "scratch": 2, "oil spot": 1}
    pack = Pack(name="textiles", defects=[{"name": "stain", "synonyms": ["oil spot"]}, {"name": "scratch"}])
    (note,) = named_twice(pack, counts)
    assert "'stain' and 'oil spot' name one defect" in note


def test_vectors_are_kept_and_damaged_ones_made_again(taught: Path, extractor: EvidenceExtractor) -> None:
    first = load_index("textiles", "woven cloth", extractor, prior=PRIOR)
    kept = sorted(taught.iterdir())
    times = [path.stat().st_mtime_ns for path in kept]
    assert len(kept) == 4
    kept[0].write_bytes(b"damaged")
    second = load_index("textiles", "woven cloth", extractor, prior=PRIOR)
    assert [path.stat().st_mtime_ns for path in kept[1:]] == times[1:]
    assert kept[0].stat().st_size > 1000
    assert (first.names, first.reliability) == (second.names, second.reliability)  # type: ignore[union-attr]


def test_without_a_taught_defect_there_is_no_name(extractor: EvidenceExtractor) -> None:
    image = cloth(1, "stain", PLACES[0])
    assert candidates("textiles", "woven cloth", image, extractor.extract(image), extractor) is None
    assert good_references("textiles", "woven cloth") == []


def test_references_are_the_good_looks_of_the_product(taught: Path) -> None:
    assert len(good_references("textiles", "woven CLOTH")) == 2
    assert good_references("textiles", "felt") == []


def test_a_product_has_its_looks_under_every_name_of_its_pack(taught: Path) -> None:
    products = "products:\n  - {name: linen, synonyms: [woven cloth], de: [Leinengewebe]}\n"
    (data_home() / "domains" / "textiles" / "pack.yaml").write_text("name: textiles\n" + products, encoding="utf-8")
    assert [len(good_references("textiles", name)) for name in ("linen", "Leinengewebe", "felt")] == [2, 2, 0]
    assert taught_domain("Linen") == "textiles"
