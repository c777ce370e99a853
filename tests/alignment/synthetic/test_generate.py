"""Synthetic parts and defects: seeded, labelled to the pixel, and good and bad can be distinguished."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from sage_ad.alignment.synthetic.generate import (
    DEFECTS,
    MISSING,
    PRODUCTS,
    foreground,
    generate,
    paste_defect,
)
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.places import PLACES, place_of_box

SIZE = 128


def pixels(image):
    return np.asarray(image, np.float32) / 255


@pytest.fixture(scope="module")
def many():
    return [generate(seed, size=SIZE, defect="maybe") for seed in range(300, 360)]


class TestSeeds:
    @pytest.mark.parametrize("product", PRODUCTS)
    def test_same_seed_same_pictures(self, product):
        one, other = (generate(11, product=product, size=SIZE) for _ in range(2))
        assert one.image.tobytes() == other.image.tobytes()
        assert one.reference.tobytes() == other.reference.tobytes()
        assert (one.mask == other.mask).all()
        assert (one.defect, one.place) == (other.defect, other.place)

    def test_another_seed_another_picture(self):
        assert generate(1, size=SIZE).image.tobytes() != generate(2, size=SIZE).image.tobytes()


class TestLabels:
    @pytest.mark.parametrize("product", PRODUCTS)
    @pytest.mark.parametrize("defect", DEFECTS)
    def test_every_defect_on_every_product(self, product, defect):
        if defect == MISSING and product in _WITHOUT_ITEMS:
            with pytest.raises(InputError, match="can be missing"):
                generate(0, product=product, defect=defect, size=SIZE)
            return
        sample = generate(4, product=product, defect=defect, size=SIZE)
        assert sample.image.size == sample.reference.size == (SIZE, SIZE)
        assert sample.mask.shape == (SIZE, SIZE)
        assert sample.mask.dtype == bool
        assert sample.mask.any()
        assert sample.place in PLACES
        assert sample.place == place_of_box(sample.box, SIZE, SIZE)
        assert (sample.detail is not None) == (defect == MISSING)

    def test_good_parts_have_no_mask_no_name_no_place(self):
        sample = generate(4, defect=None, size=SIZE)
        assert not sample.anomalous
        assert not sample.mask.any()
        assert sample.defect is sample.detail is sample.place is sample.box is None

    @pytest.mark.parametrize("defect", sorted(set(DEFECTS) - {MISSING}))
    def test_only_the_mask_changed(self, defect):
        """Pasted onto a plain picture, all that can be seen of a defect lies at its mask."""
        canvas = np.linspace(90, 160, SIZE, dtype=np.uint8)
        picture = Image.fromarray(np.stack([np.add.outer(canvas // 2, canvas // 2)] * 3, axis=-1))
        sample = paste_defect(picture, 7, defect=defect)
        change = np.abs(pixels(sample.image) - pixels(picture)).max(axis=2)
        from scipy.ndimage import binary_dilation

        outside = ~binary_dilation(sample.mask, iterations=10)
        assert change[sample.mask].mean() > 0.04
        assert change[outside].mean() < 0.01

    def test_good_and_bad_come_about_equally_often(self, many):
        share = sum(s.anomalous for s in many) / len(many)
        assert 0.3 < share < 0.7

    def test_defects_can_be_seen_against_the_same_piece(self, many):
        """A defect changes its own place more than good pieces of the design differ there."""
        for sample in [s for s in many if s.anomalous][:12]:
            good = generate(sample.seed, product=sample.product, defect=None, size=SIZE)
            change = np.abs(pixels(sample.image) - pixels(good.image)).max(axis=2)
            assert change[sample.mask].mean() > 0.03


class TestReality:
    @pytest.mark.parametrize("product", ["machined disc", "gear", "bolted cover", "circuit board", "perforated plate"])
    def test_reference_lies_as_the_test_does(self, product):
        sample = generate(8, product=product, defect=None, size=SIZE)
        grey = [pixels(i.convert("L")).ravel() for i in (sample.reference, sample.image)]
        assert np.corrcoef(*grey)[0, 1] > 0.7
        assert np.abs(grey[0] - grey[1]).mean() > 0.002  # another piece in another light, not a copy

    def test_unaligned_tests_are_turned(self):
        turned = [generate(s, product="circuit board", defect=None, size=SIZE, aligned=False) for s in range(8)]
        similarity = [
            np.corrcoef(pixels(t.reference.convert("L")).ravel(), pixels(t.image.convert("L")).ravel())[0, 1]
            for t in turned
        ]
        assert min(similarity) < 0.5 < max(similarity)

    def test_fast_enough_to_make_as_it_is_needed(self):
        started = time.process_time()
        for seed in range(20):
            generate(seed)
        assert (time.process_time() - started) / 40 < 0.1  # seconds a picture of 256 pixels


class TestPaste:
    def test_lies_on_the_part(self):
        sample = generate(3, product="capsule", defect=None, size=SIZE)
        ground = foreground(pixels(sample.image))
        assert 0.05 < ground.mean() < 0.6
        for seed in range(6):
            pasted = paste_defect(sample.image, seed, defect="hole", product="capsule", reference=sample.reference)
            assert pasted.reference is sample.reference
            assert ground[pasted.mask].mean() > 0.9

    def test_a_texture_is_part_everywhere(self):
        assert foreground(pixels(generate(3, product="woven fabric", defect=None, size=SIZE).image)).min() == 1

    def test_real_pictures_of_good_cells(self, elpv):
        good = Image.open(elpv["mono good"][0])
        pasted = paste_defect(good, 1, defect="crack", product="solar cell")
        assert pasted.image.size == good.size
        assert pasted.mask.any()
        assert (np.asarray(pasted.image) != np.asarray(good.convert("RGB"))).any(axis=2)[pasted.mask].mean() > 0.9

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
    def test_any_kind_of_picture(self, mode):
        picture = Image.new("RGB", (90, 60), (120, 130, 140)).convert(mode)
        assert paste_defect(picture, 2).mask.shape == (60, 90)

    def test_missing_parts_cannot_be_pasted(self):
        with pytest.raises(InputError, match="cannot be pasted"):
            paste_defect(Image.new("RGB", (64, 64)), 0, defect=MISSING)


class TestWrongNames:
    def test_unknown_product_lists_the_known(self):
        with pytest.raises(InputError, match="machined disc"):
            generate(0, product="teapot")

    def test_unknown_defect_lists_the_known(self):
        with pytest.raises(InputError, match="scratch"):
            generate(0, defect="boredom")


_WITHOUT_ITEMS = ("screw", "woven fabric", "ceramic tile", "glass bottle", "granular casting", "capsule", "leather")
