"""A public server (`transformers serve`) behind the interface: a tiny model that sees, and SmolLM2 for sensible text."""

from __future__ import annotations

import pytest
from PIL import Image
from tiny_models import tiny_llava_folder
from transformers_server import TransformersServer, shared_server

from sage_ad.vlm.backends.base import UndecidedError
from sage_ad.vlm.backends.registry import load_backend
from sage_ad.vlm.backends.served import ServedBackend

pytest.importorskip("uvicorn", reason="transformers serve needs fastapi and uvicorn")
pytest.importorskip("fastapi", reason="transformers serve needs fastapi and uvicorn")

PARIS = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def server() -> TransformersServer:
    return shared_server()


@pytest.fixture(scope="module")
def seeing(server: TransformersServer, tmp_path_factory: pytest.TempPathFactory) -> ServedBackend:
    folder = tiny_llava_folder(tmp_path_factory.mktemp("served-llava"))
    backend = load_backend(f"{server.url}#{folder}")
    assert isinstance(backend, ServedBackend)
    return backend


def looking(colour: str) -> list[dict[str, object]]:
    picture = {"type": "image", "image": Image.new("RGB", (40, 32), colour)}
    return [{"role": "user", "content": [picture, {"type": "text", "text": "Is there a scratch?"}]}]


def test_the_picture_reaches_the_model(seeing: ServedBackend) -> None:
    dark, bright, again = (seeing.complete(looking(c), max_new_tokens=8) for c in ("black", "white", "black"))
    assert dark.text == again.text != bright.text
    # 16 image tokens and a few bytes: the picture was not dropped.
    text = seeing.complete([{"role": "user", "content": "Is there a scratch?"}], max_new_tokens=1)
    assert (dark.prompt_tokens or 0) - (text.prompt_tokens or 0) == 16


def test_a_stream_joined_is_the_text(seeing: ServedBackend) -> None:
    assert "".join(seeing.stream(looking("red"), max_new_tokens=8)) == seeing.generate(looking("red"), max_new_tokens=8)


def test_what_it_ignores_is_found_out(seeing: ServedBackend) -> None:
    done = seeing.complete(looking("red"), max_new_tokens=8, json_schema={"type": "object"})
    assert not done.structured
    with pytest.raises(UndecidedError, match="None of 4 replies"):  # random weights say neither word
        seeing.choose(looking("red"), ["normal", "anomalous"])
    assert not seeing.capabilities.logprobs


def test_sensible_words_from_the_embedded_model_and_its_sampled_choice(server: TransformersServer) -> None:
    from sage_ad.vlm.weights.embedded import smollm2_folder

    backend = load_backend(f"{server.url}#{smollm2_folder()}")
    assert "Paris" in backend.generate(PARIS, max_new_tokens=16)
    choice = backend.choose(PARIS, ["The capital of France is Paris", "Berlin"])
    assert (choice.how, choice.probabilities["Berlin"]) == ("sampling", 0.0)
