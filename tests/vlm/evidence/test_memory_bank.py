"""References that would spoil the verdict: copies, the part itself, a lot among itself, another product, too many."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw, ImageEnhance

from sage_ad.vlm.evidence import memory_bank
from sage_ad.vlm.evidence.copies import is_copy, thumbnail
from sage_ad.vlm.evidence.encoders import PatchEncoder
from sage_ad.vlm.evidence.extractor import EvidenceExtractor
from sage_ad.vlm.evidence.preparation import differences, measure
from sage_ad.vlm.images import load_image


def sheet(seed: int, scratch: bool = False) -> Image.Image:
    """A sheet with grain and two holes that never lie quite the same; `scratch` draws a bright one."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(np.clip(rng.normal(130, 8, (80, 80)), 0, 255).astype(np.uint8)).resize((256, 256))
    draw = ImageDraw.Draw(image)
    for x in (70, 180):
        x, y = x + int(rng.integers(-4, 5)), 128 + int(rng.integers(-4, 5))
        draw.ellipse((x - 20, y - 20, x + 20, y + 20), fill=40)
    if scratch:
        draw.line((30, 30, 110, 70), fill=245, width=7)
    return image.convert("RGB")


def saved(image: Image.Image, quality: int) -> Image.Image:
    """The picture after JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


class TestCopies:
    @pytest.mark.parametrize("quality", [95, 85])
    def test_a_picture_saved_again_is_a_copy(self, quality: int, elpv: dict[str, list[Path]]) -> None:
        for image in (sheet(0), load_image(elpv["mono good"][0]), load_image(elpv["poly good"][0])):
            assert is_copy(thumbnail(image), thumbnail(saved(image, quality)))

    def test_other_good_parts_and_flawed_templates_are_none(self, elpv: dict[str, list[Path]]) -> None:
        for cells in (elpv["mono good"], elpv["poly good"]):
            small = [thumbnail(load_image(path)) for path in cells[:5]]
            assert not any(is_copy(one, other) for i, one in enumerate(small) for other in small[:i])
        flawed = sheet(0)
        ImageDraw.Draw(flawed).ellipse((100, 60, 107, 67), fill=90)
        assert not is_copy(thumbnail(sheet(0)), thumbnail(flawed))
        assert not is_copy(thumbnail(sheet(0)), thumbnail(sheet(1)))

    def test_flat_pictures_are_told_by_their_level(self) -> None:
        grey = [thumbnail(Image.new("RGB", (64, 64), (level,) * 3)) for level in (120, 121, 160)]
        assert is_copy(grey[0], grey[1])
        assert not is_copy(grey[0], grey[2])

    def test_a_reference_saved_again_counts_once(self, extractor: EvidenceExtractor) -> None:
        bank = extractor.prepare([sheet(0), saved(sheet(0), 85)])
        assert bank.warnings == ["Reference 2 is the same picture as reference 1; it counts once."]
        assert bank.threshold == extractor.prepare([sheet(0)]).threshold


class TestALotAmongItself:
    def test_each_part_is_judged_by_the_others(self, extractor: EvidenceExtractor) -> None:
        lot = [sheet(seed, scratch=seed == 3) for seed in range(6)]
        bank = extractor.prepare(lot)
        assert bank.warnings[0].startswith("Reference 4 of 6 is unlike the others: it scores 0.")
        for index, part in enumerate(lot):
            evidence = extractor.extract(saved(part, 92), bank)
            assert evidence.verdict == ("anomalous" if index == 3 else "normal")
            assert evidence.warnings[0].startswith(f"Reference {index + 1} is the inspected picture itself")

    @pytest.mark.parametrize("count", [2, 3, 4])
    def test_leaving_one_out_is_as_if_it_had_not_been_given(
        self, extractor: EvidenceExtractor, encoder: PatchEncoder, count: int
    ) -> None:
        pictures = [sheet(seed) for seed in range(count)]
        less = extractor.prepare(pictures).without(1)
        fresh = extractor.prepare([pictures[0], *pictures[2:]])
        assert less is not None
        assert less.count == count - 1
        assert less.threshold == pytest.approx(fresh.threshold, abs=1e-5)
        part = sheet(9, scratch=True)
        assert extractor.extract(part, less).score == pytest.approx(extractor.extract(part, fresh).score, abs=1e-5)


class TestAnotherProductOrPreparation:
    def test_another_product_is_named_with_figures(self, extractor: EvidenceExtractor, elpv: dict) -> None:
        cell = load_image(elpv["mono good"][0])
        warning = extractor.extract(cell, extractor.prepare([sheet(0)])).warnings[0]
        assert "The reference seems to be of another product (mean patches differ by 0." in warning

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda image: ImageEnhance.Brightness(image).enhance(2.2), "% of the picture is over-exposed"),
            (lambda image: saved(image, 12), "was compressed harder than the references"),
            (lambda image: image.rotate(6), "seems to have been turned"),
            (
                lambda image: ImageChops.multiply(image, Image.new("RGB", image.size, (255, 230, 180))),
                "is in colour and the",
            ),
        ],
    )
    def test_what_was_done_to_the_whole_picture_is_said(
        self, extractor: EvidenceExtractor, change: object, said: str
    ) -> None:
        bank = extractor.prepare([sheet(0), sheet(1)])
        assert callable(change)
        assert extractor.extract(sheet(2), bank).warnings == []
        warnings = extractor.extract(change(sheet(2)), bank).warnings
        assert any(said in warning for warning in warnings)

    def test_references_made_alike_give_no_warning(self) -> None:
        dark = [measure(sheet(seed).rotate(6)) for seed in range(3)]
        assert differences(dark[0], dark[1:]) == []

    def test_cells_of_one_line_are_made_alike(self, elpv: dict) -> None:
        cells = [measure(load_image(path)) for path in [*elpv["mono good"][:4], *elpv["mono bad"][:4]]]
        assert [differences(cell, [cells[0]]) for cell in cells] == [[]] * len(cells)


class TestManyReferences:
    def test_they_are_loaded_one_by_one_and_progress_is_said(
        self, encoder: PatchEncoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(memory_bank, "SAY_EVERY", 5)
        monkeypatch.setattr(memory_bank, "MAX_PATCHES", 4000)
        small = [sheet(seed).resize((48, 48)) for seed in range(6)]
        extractor, said = EvidenceExtractor(encoder=encoder), list[str]()
        loaded: list[int] = []

        def load(index: int) -> Image.Image:
            loaded.append(index)
            return small[index]

        bank = extractor.prepare([lambda i=i: load(i) for i in range(6)], said.append)
        assert loaded == list(range(6))
        assert said == ["5 of 6 references read", "5 of 6 references compared with the others"]
        assert bank.count == 6
        assert len(bank.patches) <= 4000

    def test_of_too_many_a_part_is_used_and_that_is_said(
        self, extractor: EvidenceExtractor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(memory_bank, "MAX_ENCODED", 8000)
        monkeypatch.setattr(memory_bank, "MAX_PATCHES", 4000)
        bank = extractor.prepare([sheet(seed) for seed in range(12)])
        assert bank.count == 5
        assert (bank.given[0], bank.given[-1]) == (0, 11)
        assert "Of 12 references 5, spread evenly, are used" in bank.warnings[0]
        assert extractor.extract(sheet(20), bank).verdict == "normal"
        assert extractor.extract(sheet(20, scratch=True), bank).verdict == "anomalous"
