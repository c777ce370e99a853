"""Evidence on synthetic parts and on real ones: absolute scale, thresholds from references, regions that hit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from sage_ad.vlm.errors import BackendError, InputError
from sage_ad.vlm.evidence.encoders import PatchEncoder
from sage_ad.vlm.evidence.extractor import Evidence, EvidenceExtractor, EvidenceSettings
from sage_ad.vlm.evidence.memory_bank import MemoryBank
from sage_ad.vlm.evidence.regions import find_regions
from sage_ad.vlm.images import load_image
from sage_ad.vlm.places import place_of_box


def washer(seed: int, hole: bool = False) -> Image.Image:
    """A grey ring on a light table, a little different with each seed; `hole` drills a dark spot at the upper right."""
    rng = np.random.default_rng(seed)
    image = Image.new("L", (320, 320), 200)
    draw = ImageDraw.Draw(image)
    x, y = 160 + rng.integers(-3, 4), 160 + rng.integers(-3, 4)
    draw.ellipse((x - 120, y - 120, x + 120, y + 120), fill=120)
    draw.ellipse((x - 50, y - 50, x + 50, y + 50), fill=200)
    if hole:
        draw.ellipse((225, 85, 243, 103), fill=20)
    noisy = np.asarray(image, float) + rng.normal(0, 3, (320, 320))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).convert("RGB")


@pytest.fixture(scope="module")
def bank(extractor: EvidenceExtractor) -> MemoryBank:
    return extractor.prepare([washer(0)])


@pytest.fixture(scope="module")
def good(extractor: EvidenceExtractor, bank: MemoryBank) -> Evidence:
    return extractor.extract(washer(1), bank)


@pytest.fixture(scope="module")
def drilled(extractor: EvidenceExtractor, bank: MemoryBank) -> Evidence:
    return extractor.extract(washer(2, hole=True), bank)


class TestWithReference:
    def test_a_good_part_is_normal_and_shows_no_hot_spot(self, good: Evidence) -> None:
        assert good.verdict == "normal"
        assert good.score <= good.threshold
        assert good.regions == []
        assert (good.map > good.threshold).mean() < 0.005
        assert good.warnings == []

    def test_a_drilled_part_is_anomalous_where_it_was_drilled(self, drilled: Evidence) -> None:
        assert drilled.verdict == "anomalous"
        x0, y0, x1, y1 = drilled.regions[0].box
        assert x0 < 234 < x1
        assert y0 < 94 < y1
        assert drilled.regions[0].place == "upper right"
        assert x1 - x0 < 110
        assert drilled.regions[0].score >= drilled.threshold

    def test_shapes_and_scales(self, drilled: Evidence) -> None:
        assert drilled.map.shape == (320, 320)
        assert drilled.map.dtype == np.float32
        assert drilled.distances.shape == drilled.features.shape[:2]
        assert drilled.reference_features is not None
        assert 0 <= drilled.score <= 2
        assert np.sign(drilled.margin) == 1

    def test_the_confidence_is_the_share_of_right_verdicts_at_such_a_margin(self, drilled: Evidence) -> None:
        """(1 + margin) to the power .9 to one (`benchmarks/confidence.py`); the margin as log-odds would say .94."""
        odds = (1 + drilled.margin) ** 0.9
        assert drilled.confidence == pytest.approx(odds / (1 + odds), abs=1e-3)
        assert "18 other products" in drilled.confidence_reason

    def test_distinct_patches_are_the_most_distant(self, drilled: Evidence) -> None:
        flat = drilled.distances.flatten()
        assert len(drilled.distinct) == 64
        assert int(drilled.distinct[0]) == int(flat.argmax())
        assert flat[drilled.distinct].min() >= flat.topk(64).values.min()

    def test_the_threshold_says_where_it_is_from(self, good: Evidence) -> None:
        assert good.threshold_from == "references"
        assert "patch by patch against the rest of itself" in good.threshold_reason

    def test_parts_on_a_black_ground_are_told_apart(self, extractor: EvidenceExtractor) -> None:
        """The ground says nothing of how a part was lit: to bring its level to a fixed one would wash the part out."""

        def on_black(seed: int, hole: bool = False) -> Image.Image:
            part = np.asarray(washer(seed, hole))
            return Image.fromarray(np.where(part > 160, 8, part + 60).astype(np.uint8))

        bank = extractor.prepare([on_black(seed) for seed in range(4)])
        assert extractor.extract(on_black(5), bank).verdict == "normal"
        assert extractor.extract(on_black(6, hole=True), bank).verdict == "anomalous"

    def test_the_score_does_not_depend_on_what_was_inspected_before(
        self, extractor: EvidenceExtractor, bank: MemoryBank, drilled: Evidence
    ) -> None:
        again = extractor.extract(washer(2, hole=True), bank)
        assert again.score == drilled.score
        assert np.array_equal(again.map, drilled.map)

    def test_a_turned_part_is_still_good(self, extractor: EvidenceExtractor, bank: MemoryBank) -> None:
        turned = washer(3).transpose(Image.Transpose.ROTATE_90)
        assert extractor.extract(turned, bank).verdict == "normal"

    def test_another_size_than_the_reference(self, extractor: EvidenceExtractor, bank: MemoryBank) -> None:
        evidence = extractor.extract(washer(4).resize((480, 400)), bank)
        assert evidence.map.shape == (400, 480)

    def test_another_product_gives_a_warning(self, extractor: EvidenceExtractor, bank: MemoryBank) -> None:
        rng = np.random.default_rng(0)
        noise = Image.fromarray(rng.integers(0, 255, (320, 320, 3), np.uint8))
        evidence = extractor.extract(noise, bank)
        assert "another product" in evidence.warnings[0]


class TestSeveralReferences:
    def test_they_are_compared_with_one_another(self, extractor: EvidenceExtractor) -> None:
        bank = extractor.prepare([washer(0), washer(5)])
        assert bank.count == 2
        assert "2 references" in bank.threshold_reason
        assert extractor.extract(washer(1), bank).verdict == "normal"
        assert extractor.extract(washer(2, hole=True), bank).verdict == "anomalous"


class TestReferencesAreChecked:
    def test_a_picture_given_twice_counts_once(self, extractor: EvidenceExtractor) -> None:
        bank = extractor.prepare([washer(0), washer(5), washer(0)])
        assert bank.count == 2
        assert bank.warnings == ["Reference 3 is the same picture as reference 1; it counts once."]
        assert bank.warnings[0] in extractor.extract(washer(1), bank).warnings

    def test_a_defective_one_is_named_with_its_figure_and_kept(self, extractor: EvidenceExtractor) -> None:
        bank = extractor.prepare([washer(0), washer(5), washer(6), washer(7, hole=True), washer(8)])
        assert bank.count == 5
        (warning,) = bank.warnings
        assert warning.startswith("Reference 4 of 5 is unlike the others: it scores 0.")

    def test_good_ones_are_not_named(self, extractor: EvidenceExtractor) -> None:
        assert extractor.prepare([washer(seed) for seed in (0, 5, 6, 7, 8)]).warnings == []

    def test_the_part_itself_is_never_its_own_reference(self, extractor: EvidenceExtractor) -> None:
        drilled, others = washer(2, hole=True), [washer(0), washer(5)]
        evidence = extractor.extract(drilled, extractor.prepare([drilled, *others]))
        without = extractor.extract(drilled, extractor.prepare(others))
        assert evidence.verdict == "anomalous"
        assert evidence.score == without.score
        assert evidence.reference_features is not None
        assert torch.equal(evidence.reference_features, without.reference_features)
        assert evidence.warnings[0].startswith("Reference 1 is the inspected picture itself")

    def test_a_flaw_in_a_copy_of_the_reference_is_no_copy(self, extractor: EvidenceExtractor) -> None:
        """Templates of drawn parts differ from the inspected picture by nothing but the flaw."""
        flawed = washer(0)
        ImageDraw.Draw(flawed).ellipse((225, 85, 239, 99), fill=(20, 20, 20))
        evidence = extractor.extract(flawed, extractor.prepare([washer(0)]))
        assert evidence.threshold_from == "references"
        assert evidence.verdict == "anomalous"

    def test_a_part_that_is_its_only_reference_is_judged_without(self, extractor: EvidenceExtractor) -> None:
        evidence = extractor.extract(washer(0), extractor.prepare([washer(0)]))
        assert evidence.threshold_from == "builtin"
        assert evidence.warnings == [
            "The reference is the inspected picture itself; it was left out of the comparison."
        ]


class TestWithoutReference:
    def test_the_builtin_threshold_is_named(self, extractor: EvidenceExtractor) -> None:
        evidence = extractor.extract(washer(2, hole=True))
        assert evidence.threshold_from == "builtin"
        assert "no reference" in evidence.threshold_reason
        assert "a hint, not a verdict" in evidence.confidence_reason
        assert evidence.reference_features is None

    def test_a_picture_of_nothing_is_named(self, extractor: EvidenceExtractor) -> None:
        noise = np.random.default_rng(0).integers(0, 4, (64, 64, 3), dtype=np.uint8)
        assert "nearly one colour" in extractor.extract(Image.fromarray(noise)).warnings[0]
        assert extractor.extract(washer(2)).warnings == []

    def test_a_defect_scores_higher_than_none(self, extractor: EvidenceExtractor) -> None:
        assert extractor.extract(washer(2, hole=True)).margin > extractor.extract(washer(2)).margin

    def test_the_brightest_evidence_is_at_the_defect(self, extractor: EvidenceExtractor) -> None:
        evidence = extractor.extract(washer(2, hole=True))
        y, x = np.unravel_index(int(evidence.map.argmax()), evidence.map.shape)
        assert abs(int(x) - 234) < 30
        assert abs(int(y) - 94) < 30


class TestSettings:
    @pytest.mark.parametrize("wrong", [{"matching": "best"}, {"top_share": 0.0}, {"distinct": 0}, {"max_regions": 0}])
    def test_wrong_settings_raise(self, wrong: dict) -> None:
        with pytest.raises(InputError):
            EvidenceSettings(**wrong)

    def test_no_reference_at_all_raises(self, extractor: EvidenceExtractor) -> None:
        with pytest.raises(InputError, match="No reference"):
            extractor.prepare([])

    def test_with_a_reference_it_is_the_plain_match(self, extractor: EvidenceExtractor, encoder: PatchEncoder) -> None:
        evidence = extractor.extract(washer(2, hole=True), extractor.prepare([washer(0)]))
        test, reference = encoder.encode([washer(2, hole=True), washer(0)]).maps
        distance = 1 - (test.flatten(0, 1) @ reference.flatten(0, 1).T).amax(dim=1)
        assert evidence.score == pytest.approx(distance.topk(16).values.mean().item(), abs=1e-5)
        torch.testing.assert_close(evidence.distances.flatten(), distance, atol=1e-5, rtol=0)

    def test_the_printed_matching_is_selectable(self, encoder: PatchEncoder) -> None:
        printed = EvidenceExtractor(EvidenceSettings(matching="paper"), encoder)
        bank = printed.prepare([washer(0)])
        nearest = EvidenceExtractor(encoder=encoder).prepare([washer(0)])
        image = washer(1)
        far = printed.extract(image, bank).score
        assert far > EvidenceExtractor(encoder=encoder).extract(image, nearest).score

    def test_a_bank_of_another_encoder_raises(self, extractor: EvidenceExtractor, bank: MemoryBank) -> None:
        from dataclasses import replace

        with pytest.raises(BackendError, match="prepare them again"):
            extractor.extract(washer(1), replace(bank, encoder="some-other"))

    def test_another_encoder_compares_with_references_and_among_parts(self, tmp_path: Path) -> None:
        import transformers

        torch.manual_seed(0)
        small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        transformers.Dinov2Model(transformers.Dinov2Config(**small, patch_size=14)).save_pretrained(tmp_path)
        other = EvidenceExtractor(EvidenceSettings(encoder=str(tmp_path), size=140))
        compared = other.extract(washer(1), other.prepare([washer(0)]))
        assert compared.distances.shape == (10, 10)
        assert "was not measured" in compared.confidence_reason
        assert other.features_of(washer(1)).shape == (10, 10, 16)
        with pytest.raises(InputError, match="needs references or the other parts of a batch"):
            other.extract(washer(1))


class TestRegions:
    def test_strongest_first_and_at_most_the_limit(self) -> None:
        values = np.zeros((90, 90), np.float32)
        for index, (y, x) in enumerate([(10, 10), (10, 70), (70, 10), (70, 70)]):
            values[y : y + 8, x : x + 6] = 0.5 + 0.1 * index
        regions = find_regions(values, 0.4, limit=3)
        assert [region.place for region in regions] == ["lower right", "lower left", "upper right"]
        assert regions[0].box == (70, 70, 76, 78)
        assert regions[0].score == pytest.approx(0.8)

    def test_a_region_extends_below_the_threshold_but_must_pass_it(self) -> None:
        values = np.zeros((100, 100), np.float32)
        values[20:40, 20:40], values[28:32, 28:32] = 0.5, 0.6
        values[70:80, 70:80] = 0.5
        assert find_regions(values, 0.55)[0].box == (28, 28, 32, 32)
        wider = find_regions(values, 0.55, down_to=0.4, reach=0.4)
        assert [region.box for region in wider] == [(20, 20, 40, 40)]

    def test_a_broad_defect_comes_before_a_sharp_glint(self) -> None:
        values = np.zeros((90, 90), np.float32)
        values[5:9, 80:84] = 0.9
        values[50:80, 10:40] = 0.6
        regions = find_regions(values, 0.5)
        assert [region.place for region in regions] == ["lower left", "upper right"]
        assert regions[1].score == pytest.approx(0.9)

    def test_nothing_above_the_threshold_gives_nothing(self) -> None:
        assert find_regions(np.zeros((20, 20), np.float32), 0.1) == []

    def test_specks_are_left_out_unless_they_are_all_there_is(self) -> None:
        values = np.zeros((200, 200), np.float32)
        values[5, 5] = 0.9
        assert len(find_regions(values, 0.5)) == 1
        values[100:120, 100:120] = 0.6
        assert [region.place for region in find_regions(values, 0.5)] == ["centre"]


@pytest.mark.data
def test_real_cells_in_the_mean(extractor: EvidenceExtractor, elpv: dict[str, list[Path]]) -> None:
    """Cracked cells score higher than good ones against a good one, and every region has a place in words."""
    good = [load_image(path) for path in elpv["mono good"][:5]]
    bad = [load_image(path) for path in elpv["mono bad"][:4]]
    bank = extractor.prepare(good[:1])
    low = [extractor.extract(image, bank).score for image in good[1:]]
    found = [extractor.extract(image, bank) for image in bad]
    assert np.mean([evidence.score for evidence in found]) > np.mean(low)
    for image, evidence in zip(bad, found, strict=True):
        for region in evidence.regions:
            assert region.place == place_of_box(region.box, *image.size)


def test_a_cell_is_no_washer_but_cells_are_cells(
    extractor: EvidenceExtractor, bank: MemoryBank, elpv: dict[str, list[Path]]
) -> None:
    cells = [load_image(path) for path in (*elpv["mono good"][:3], elpv["mono bad"][0])]
    assert "another product" in extractor.extract(cells[0], bank).warnings[0]
    own = extractor.prepare(cells[:1])
    assert [extractor.extract(cell, own).warnings for cell in cells[1:]] == [[], [], []]
