"""Large pictures and strips: one grid from overlapping tiles, small flaws found, small pictures left whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.evidence.encoders import PatchEncoder
from sage_ad.vlm.evidence.extractor import EvidenceExtractor, EvidenceSettings
from sage_ad.vlm.evidence.tiles import encode, parse_tile, tile_side


def web(seed: int, width: int, height: int, spot: tuple[int, int] | None = None) -> Image.Image:
    """A brushed web of grey sheet; `spot` is the middle of a dark spot of 12 x 12 pixels."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(140, 12, (height, 1)) + rng.normal(0, 6, (height, width))
    image = Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)).convert("RGB")
    if spot:
        x, y = spot
        ImageDraw.Draw(image).ellipse((x - 6, y - 6, x + 5, y + 5), fill=(15, 15, 15))
    return image


@pytest.mark.parametrize(
    ("tile", "size", "side"),
    [
        ("auto", (300, 300), None),
        ("auto", (1280, 1280), None),
        ("auto", (4000, 3000), 640),
        ("auto", (16000, 512), 512),
        ("auto", (2048, 256), 256),
        ("auto", (256, 2048), 256),
        ("auto", (1000, 20), 80),
        ("off", (4000, 3000), None),
        (200, (300, 180), 200),
        (400, (300, 180), None),
    ],
)
def test_what_is_cut(tile: int | str, size: tuple[int, int], side: int | None) -> None:
    assert tile_side(tile, *size, 320) == side


def test_a_picture_that_is_not_cut_is_encoded_as_ever(encoder: PatchEncoder) -> None:
    image = web(0, 400, 300)
    seen = encode(encoder, image, None, None)
    assert torch.equal(seen.features, encoder.encode([image])[0])
    assert seen.window == seen.patches


@pytest.mark.parametrize(("width", "height"), [(1290, 700), (2000, 256), (100, 1500)])
def test_tiles_make_one_grid_that_covers_the_picture(encoder: PatchEncoder, width: int, height: int) -> None:
    side = tile_side(256, width, height, 320)
    features = encode(encoder, web(0, width, height), 160, side).features
    assert features.shape[1] / features.shape[0] == pytest.approx(width / height, rel=0.15)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(features.shape[:2]))


def test_a_spot_is_nowhere_but_at_its_place(encoder: PatchEncoder) -> None:
    """Patches of two pictures that differ by a spot differ around it alone, whichever tiles it lies on."""
    for spot in ((128, 128), (700, 300), (1275, 690)):
        grids = [encode(encoder, web(0, 1290, 700, at), 160, 256).features for at in (None, spot)]
        far = 1 - (grids[0] * grids[1]).sum(-1)
        row, column = np.unravel_index(int(far.argmax()), far.shape)
        assert (column + 0.5) / far.shape[1] * 1290 == pytest.approx(spot[0], abs=20)
        assert (row + 0.5) / far.shape[0] * 700 == pytest.approx(spot[1], abs=20)


class TestEvidence:
    @pytest.mark.parametrize(("size", "spot"), [((2048, 256), (1500, 90)), ((1600, 700), (333, 512))])
    def test_a_small_flaw_is_found_at_its_place(
        self, encoder: PatchEncoder, size: tuple[int, int], spot: tuple[int, int]
    ) -> None:
        extractor = EvidenceExtractor(encoder=encoder)
        bank = extractor.prepare([web(0, *size), web(1, *size)])
        good, bad = (extractor.extract(web(2, *size, at), bank) for at in (None, spot))
        assert (good.verdict, good.warnings) == ("normal", [])
        assert bad.verdict == "anomalous"
        assert bad.map.shape == size[::-1]
        x0, y0, x1, y1 = bad.regions[0].box
        assert x0 < spot[0] < x1
        assert y0 < spot[1] < y1
        assert x1 - x0 < 100

    def test_a_large_picture_that_is_left_whole_says_so(self, encoder: PatchEncoder) -> None:
        strip, whole = web(0, 2048, 256), EvidenceExtractor(EvidenceSettings(tile="off"), encoder)
        (warning,) = whole.extract(web(1, 2048, 256), whole.prepare([strip])).warnings
        assert "2048 x 256 pixels was reduced 3 times" in warning
        assert EvidenceExtractor(encoder=encoder).extract(strip).warnings == [warning]
        assert EvidenceExtractor(EvidenceSettings(tile=256), encoder).extract(strip).warnings == []

    def test_a_part_is_cut_at_the_scale_of_its_references(self, encoder: PatchEncoder) -> None:
        extractor = EvidenceExtractor(encoder=encoder)
        bank = extractor.prepare([web(0, 1400, 400)])
        twice = web(1, 1400, 400).resize((2800, 800))
        assert extractor.extract(twice, bank).features.shape == bank.first.shape


class TestLineScans:
    """Real strips (shared/cases/line-scan-strip), each compared with one good strip."""

    @staticmethod
    def strips(data_root: Path, *names: str) -> list[Image.Image]:
        folder = data_root.parent / "cases" / "line-scan-strip"
        if not folder.is_dir():
            pytest.skip(f"the strips are absent: {folder}")
        return [Image.open(folder / f"{name}.jpg").convert("RGB") for name in names]

    def test_a_spot_is_found_at_its_place(self, data_root: Path, encoder: PatchEncoder) -> None:
        spot, good = self.strips(data_root, "spot100_4096x512", "good_4096x512")
        extractor = EvidenceExtractor(encoder=encoder)
        found = extractor.extract(spot, extractor.prepare([good]))
        assert (found.verdict, found.warnings) == ("anomalous", [])
        x0, y0, x1, y1 = found.regions[0].box
        assert x0 < 2515 < x1
        assert y0 < 256 < y1

    def test_a_curled_weft_is_not_lost_in_reduction(self, data_root: Path, encoder: PatchEncoder) -> None:
        """What the evidence shows; why the threshold of one reference lies above it stands in docs/detection.md."""
        weft, good = self.strips(data_root, "strip_weft_curling", "good_strip")
        extractor = EvidenceExtractor(encoder=encoder)
        found = extractor.extract(weft, extractor.prepare([good]))
        assert found.warnings == []
        rows, columns = np.unravel_index(found.distinct[:16].numpy(), found.distances.shape)
        y, x = 256 / found.distances.shape[0] * (rows + 0.5), 2048 / found.distances.shape[1] * (columns + 0.5)
        assert ((abs(x - 1090) < 16) & (abs(y - 182) < 20)).sum() >= 4


@pytest.mark.parametrize("wrong", ["large", "0", 8, -3, True, "3.5"])
def test_a_wrong_tile_is_refused(wrong: int | str) -> None:
    with pytest.raises(InputError, match="use auto, off, or its side in pixels"):
        parse_tile(wrong)
    with pytest.raises(InputError):
        EvidenceSettings(tile=wrong)
