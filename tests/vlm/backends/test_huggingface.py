"""Local models of Hugging Face: precision, quantising, processors with a video part, and SAGE around them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from backend_conformance import OTHERS, QUESTION
from PIL import Image
from tiny_models import (
    IMAGE_ID,
    TEXT,
    tiny_language_model,
    tiny_qwen2_5_vl,
    tiny_qwen2_5_vl_processor,
    tiny_tokenizer,
    tiny_wrapped_folder,
)

from sage_ad.vlm.backends.registry import load_backend
from sage_ad.vlm.errors import InputError


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-llama")
    tiny_language_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Qwen2.5-VL, saved as a folder with a processor that has no video part, loaded like any other."""
    folder = tmp_path_factory.mktemp("tiny-qwen")
    tiny_qwen2_5_vl().save_pretrained(folder)
    tiny_qwen2_5_vl_processor().save_pretrained(folder)
    return load_backend(str(folder), device="cpu")


def looking(*colours: str) -> list[dict[str, Any]]:
    parts = [{"type": "image", "image": Image.new("RGB", (40, 40), colour)} for colour in colours]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "Is there a scratch?"}]}]


class TestPrecision:
    def test_it_stands_behind_the_name(self, text_folder: Path) -> None:
        import torch

        backend: Any = load_backend(f"{text_folder}#bfloat16", device="cpu")
        assert backend.model.dtype == torch.bfloat16
        assert backend.name == text_folder.name
        with pytest.raises(InputError, match=r"no dtype 'float7'; use auto, bfloat16, float16, float32, 8bit or 4bit"):
            load_backend(f"{text_folder}#float7", device="cpu")

    @pytest.mark.parametrize("bits", ["8bit", "4bit"])
    def test_weights_are_quantised_where_the_library_is_there(self, tmp_path: Path, bits: str) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        # Wide enough for the blocks in which weights are quantised.
        LlamaForCausalLM(LlamaConfig(**{**TEXT, "hidden_size": 128, "intermediate_size": 256})).save_pretrained(
            tmp_path
        )
        tiny_tokenizer().save_pretrained(tmp_path)
        if importlib.util.find_spec("bitsandbytes"):
            backend: Any = load_backend(f"{tmp_path}#{bits}", device="cpu")
            assert getattr(backend.model, f"is_loaded_in_{bits}")
            assert backend.complete(QUESTION, max_new_tokens=4).completion_tokens
        else:
            with pytest.raises(InputError, match="pip install bitsandbytes"):
                load_backend(f"{tmp_path}#{bits}", device="cpu")


class TestWithoutTorchvision:
    def test_pictures_reach_a_model_whose_processor_has_a_video_part(self, qwen: Any) -> None:
        inputs = qwen.encode([looking("red", "blue")])
        assert (inputs["input_ids"] == IMAGE_ID).sum() == 2 * 16
        dark, bright = (
            qwen.choose(looking(colour), ["normal", "anomalous"]).probabilities["normal"]
            for colour in ("black", "white")
        )
        assert dark != pytest.approx(bright, abs=1e-5)

    def test_choices_with_a_common_beginning_are_compared_whole(self, qwen: Any) -> None:
        chances = qwen.choose(looking("red"), ["normal part", "normal wear"]).probabilities
        assert sum(chances.values()) == pytest.approx(1)

    def test_a_batch_gives_what_single_calls_give(self, qwen: Any) -> None:
        batch = [looking("red"), OTHERS[0], looking("blue"), looking("red", "green")]
        done = qwen.complete_batch(batch, max_new_tokens=5)
        assert [one.text for one in done] == [qwen.generate(messages, max_new_tokens=5) for messages in batch]
        assert all(one.completion_tokens for one in done)
        assert done[3].prompt_tokens - done[0].prompt_tokens == 16 + 2  # and the brackets around it


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_backend(str(tiny_wrapped_folder(tmp_path_factory.mktemp("wrapped"))), device="cpu")


class TestWrapped:
    def test_evidence_decides_the_state_of_an_untrained_shell(self, wrapped: Any) -> None:
        picture, good = Image.new("RGB", (40, 32), "red"), Image.new("RGB", (40, 32), "blue")
        for odds in (2.0, -3.0):
            reply = wrapped.answer_part(picture, [good], ["Is it good?", "Which hole is there?"], facts=["a hole"],
                                        log_odds=odds, max_new_tokens=4)  # fmt: skip
            assert reply.log_odds == pytest.approx(odds, abs=0.05)
            assert len(reply.texts) == 2

    @pytest.mark.parametrize("mode", ["soft", "hard", "none"])
    def test_facts_come_in_any_way_and_without_a_reference(self, wrapped: Any, mode: str) -> None:
        picture = Image.new("RGB", (40, 32), "red")
        reply = wrapped.answer_part(picture, [], ["Is it good?"], facts=["a hole"], mode=mode, max_new_tokens=3)
        assert len(reply.texts) == 1

    def test_it_is_a_plain_model_that_sees_as_well(self, wrapped: Any) -> None:
        assert wrapped.capabilities.images
        assert wrapped.capabilities.soft_facts
        assert not wrapped.capabilities.writes_facts  # a handful of parameters knows nothing of products
        text = wrapped.generate(looking("red"), max_new_tokens=6)
        assert not text.startswith(("normal", "anomalous"))

    @pytest.mark.parametrize("text", ["anomalous. False. A hole.", "Normal, A hole.", "A hole."])
    def test_state_and_verdict_words_are_no_part_of_the_reason(self, text: str) -> None:
        from sage_ad.vlm.backends.wrapped_backend import reason_of

        assert reason_of(text) == "A hole."

    def test_an_uncalibrated_margin_is_taken_as_it_is(self, wrapped: Any) -> None:
        assert wrapped.evidence_log_odds(1.5, "references") == 1.5
        wrapped.model.config.calibration = {"references": [2.0, -1.0]}
        assert wrapped.evidence_log_odds(1.5, "references") == 2.0
