"""Local back ends: the embedded model, any Hugging Face text or image-text model, the scripted double."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from backend_conformance import OTHERS, QUESTION, BackendConformance
from PIL import Image

from sage_ad.vlm.backends.base import Capabilities, cut_at_stop, safe_length
from sage_ad.vlm.backends.registry import load_backend
from sage_ad.vlm.backends.scripted import ScriptedBackend
from sage_ad.vlm.errors import BackendError, InputError

SHARED = "You inspect parts. Facts: a crack is a dark line in the cell; a finger interruption is a dark bar. " * 3


@pytest.fixture(scope="session")
def smollm() -> Any:
    """The embedded model in float32, in which a batch equals single calls exactly."""
    from sage_ad.vlm.backends.smollm import load_smollm2

    return load_smollm2(device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with random weights, saved as a folder."""
    from tiny_models import tiny_language_model, tiny_tokenizer

    folder = tmp_path_factory.mktemp("tiny-llama")
    tiny_language_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def vision_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA with random weights and its processor, saved as a folder."""
    from tiny_models import tiny_llava_folder

    return tiny_llava_folder(tmp_path_factory.mktemp("tiny-llava"))


@pytest.fixture(scope="session")
def tiny_text(text_folder: Path) -> Any:
    return load_backend(str(text_folder), device="cpu")


@pytest.fixture(scope="session")
def tiny_vision(vision_folder: Path) -> Any:
    return load_backend(str(vision_folder), device="cpu")


class TestEmbedded(BackendConformance):
    @pytest.fixture
    def backend(self, smollm: Any) -> Any:
        return smollm

    def test_its_name_says_that_it_is_untuned(self, smollm: Any) -> None:
        assert "untuned" in smollm.name

    def test_it_knows_its_chat_format_and_ends_by_itself(self, smollm: Any) -> None:
        done = smollm.complete([{"role": "user", "content": "What is the capital of France?"}], max_new_tokens=40)
        assert "Paris" in done.text
        assert done.finish == "stop"
        assert "<|im_" not in done.text

    def test_what_prompts_share_is_read_once_and_changes_nothing(self, smollm: Any) -> None:
        system = {"role": "system", "content": SHARED}
        prompts = [[system, messages[-1]] for messages in OTHERS]
        lengths: list[int] = []
        hook = smollm.model.model.register_forward_pre_hook(
            lambda module, args, kwargs: lengths.append(kwargs["input_ids"].numel()), with_kwargs=True
        )
        try:
            batch = smollm.generate_batch(prompts, max_new_tokens=8)
        finally:
            hook.remove()
        assert batch == [smollm.generate(prompt, max_new_tokens=8) for prompt in prompts]
        whole = sum(len(smollm.tokenizer(SHARED)["input_ids"]) for _ in prompts)
        assert lengths[0] + lengths[1] < whole, "the shared beginning was run once for each prompt"

    def test_samples_follow_the_seed_and_leave_torch_alone(self, smollm: Any) -> None:
        import torch

        torch.manual_seed(7)
        expected = torch.rand(3)
        torch.manual_seed(7)
        texts = [smollm.generate(QUESTION, max_new_tokens=12, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
        assert texts[0] == texts[1] != texts[2]
        assert torch.equal(torch.rand(3), expected)

    def test_a_prompt_longer_than_the_context_raises(self, smollm: Any) -> None:
        with pytest.raises(InputError, match="holds 8192"):
            smollm.generate([{"role": "user", "content": "crack " * 9000}])

    def test_characters_of_several_tokens_are_streamed_whole(self, smollm: Any) -> None:
        ask = [{"role": "user", "content": "Repeat exactly: Prüfung 検査 😀"}]
        pieces = list(smollm.stream(ask, max_new_tokens=16))
        assert "".join(pieces) == smollm.generate(ask, max_new_tokens=16)
        assert not any("�" in piece for piece in pieces[:-1])

    def test_an_abandoned_stream_does_not_block_the_next_call(self, smollm: Any) -> None:
        stream = smollm.stream(QUESTION, max_new_tokens=200)
        next(stream)
        del stream
        assert smollm.generate(QUESTION, max_new_tokens=2)
        assert not [thread for thread in threading.enumerate() if thread.name == "sage-stream"]

    def test_numbers_are_read_digit_by_digit(self, smollm: Any) -> None:
        tokens = smollm.tokenizer.tokenize("score  123.5 at 7")
        assert tokens == ["score", "ĠĠ", "1", "2", "3", ".", "5", "Ġat", "Ġ", "7"]

    def test_text_and_special_tokens_round_trip(self, smollm: Any) -> None:
        for text in ("A crack, 3.5 mm long (upper left).", "Prüfteil Nr. 12\n\tok", "検査 😀", "  two  spaces  "):
            ids = smollm.tokenizer(text, add_special_tokens=False)["input_ids"]
            assert smollm.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
        assert smollm.tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]
        assert smollm.tokenizer("<|im_end|>")["input_ids"] == [2]


class TestTinyText(BackendConformance):
    @pytest.fixture
    def backend(self, tiny_text: Any) -> Any:
        return tiny_text

    def test_it_is_called_like_its_folder(self, backend: Any, text_folder: Path) -> None:
        assert backend.name == text_folder.name

    def test_choices_with_a_common_beginning_are_compared_whole(self, backend: Any) -> None:
        one = backend.choose(QUESTION, ["normal part", "normal wear"])
        assert sum(one.probabilities.values()) == pytest.approx(1)
        assert one.probabilities["normal part"] != pytest.approx(0.5)


class TestTinyVision(BackendConformance):
    @pytest.fixture
    def backend(self, tiny_vision: Any) -> Any:
        return tiny_vision

    def test_the_picture_changes_what_the_model_thinks(self, backend: Any) -> None:
        chances = [
            backend.choose(_looking(Image.new("RGB", (40, 32), colour)), ["True", "False"]).probabilities["True"]
            for colour in ("black", "white")
        ]
        assert backend.capabilities.images
        assert chances[0] != pytest.approx(chances[1], abs=1e-4)

    def test_no_image_token_is_cut_off(self, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from tiny_models import IMAGE_ID

        monkeypatch.setattr(backend.tokenizer, "model_max_length", 20)
        inputs = backend.encode([_looking(*[Image.new("RGB", (32, 32))] * 3)])
        assert (inputs["input_ids"] == IMAGE_ID).sum() == 3 * 16

    def test_pictures_and_plain_text_may_share_a_batch(self, backend: Any, tmp_path: Path) -> None:
        Image.new("RGB", (32, 32), "red").save(tmp_path / "part.png")
        pair = _looking(tmp_path / "part.png", Image.new("L", (32, 32)))
        batch = [pair, OTHERS[0], _looking(Image.new("RGB", (64, 48), "blue"))]
        assert backend.generate_batch(batch, max_new_tokens=6) == [
            backend.generate(messages, max_new_tokens=6) for messages in batch
        ]


class TestScripted(BackendConformance):
    @pytest.fixture
    def backend(self) -> ScriptedBackend:
        return ScriptedBackend(lambda messages: f"True, a crack breaks the cell; {len(messages)} messages were read.")

    def test_it_says_its_replies_in_order_and_remembers_the_questions(self) -> None:
        backend = ScriptedBackend(["one", BackendError("The server is away; start it."), "three"])
        assert backend.generate(QUESTION) == "one"
        with pytest.raises(BackendError, match="away"):
            backend.generate(QUESTION)
        assert backend.generate(OTHERS[0]) == "three"
        assert backend.calls[2][0]["content"] == [{"type": "text", "text": "Name one defect of a metal screw."}]

    def test_a_script_at_its_end_raises(self) -> None:
        with pytest.raises(BackendError, match="has 1 replies and was asked for number 2"):
            ScriptedBackend(["one"]).generate_batch([QUESTION, QUESTION])

    def test_it_can_stand_in_for_a_model_that_sees_nothing(self) -> None:
        backend = ScriptedBackend(["x"], capabilities=Capabilities())
        with pytest.raises(InputError, match="reads no images"):
            backend.generate(_looking(Image.new("RGB", (2, 2))))


class TestLoading:
    @pytest.mark.parametrize("name", ["./no/such/folder", "/nowhere/at/all", "a/b/c", " "])
    def test_what_is_no_model_raises_and_says_what_can_be_given(self, name: str) -> None:
        with pytest.raises(InputError, match=r"'sage-tiny', .*a Hugging Face name or folder, or the URL"):
            load_backend(name)

    def test_a_name_that_is_not_on_this_machine_raises_one_sentence(self) -> None:
        with pytest.raises(InputError, match="not in the local Hugging Face cache") as caught:
            load_backend("nobody/no-such-model")
        assert "\n" not in str(caught.value)

    def test_a_folder_without_a_model_raises(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"config\.json does not exist"):
            load_backend(str(tmp_path))

    def test_a_broken_configuration_raises(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": ')
        with pytest.raises(InputError, match="cannot be read"):
            load_backend(str(tmp_path))

    def test_missing_weights_raise(self, text_folder: Path, tmp_path: Path) -> None:
        for file in text_folder.glob("*.json"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
        with pytest.raises(BackendError, match="cannot be loaded"):
            load_backend(str(tmp_path))

    @pytest.mark.parametrize("kind", ["llama", "unheard-of"])
    def test_code_beside_a_model_is_neither_run_nor_asked_about(
        self, text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        ran = tmp_path / "ran"
        code = f"open({str(ran)!r}, 'w')"
        for file in text_folder.glob("*.json"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
        config = json.loads((tmp_path / "config.json").read_text()) | {"model_type": kind}
        names = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
        (tmp_path / "config.json").write_text(json.dumps(config | {"auto_map": names}))
        (tmp_path / "own.py").write_text(code)
        (tmp_path / "pytorch_model.bin").write_bytes(b"cbuiltins\nexec\n(V" + code.encode() + b"\ntR.")
        monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user is asked whether to run the code"))
        with pytest.raises((InputError, BackendError), match=r"custom code|cannot be loaded"):
            load_backend(str(tmp_path))
        assert not ran.exists()

    def test_a_model_that_writes_no_text_raises(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
        with pytest.raises(InputError, match="writes no text"):
            load_backend(str(tmp_path))

    def test_a_model_without_a_chat_template_raises(self, text_folder: Path) -> None:
        from tiny_models import tiny_language_model, tiny_tokenizer

        from sage_ad.vlm.backends.huggingface import HuggingFaceBackend

        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = None
        with pytest.raises(InputError, match="no chat template"):
            HuggingFaceBackend(tiny_language_model(), tokenizer, name="plain")

    def test_a_template_without_system_role_gets_it_in_the_first_user_message(self, text_folder: Path) -> None:
        backend: Any = load_backend(str(text_folder), device="cpu")
        backend.tokenizer.chat_template = (
            "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
            + backend.tokenizer.chat_template
        )
        seen = backend.tokenizer.decode(backend.encode([QUESTION])["input_ids"][0])
        assert "You inspect parts" in seen
        with pytest.raises(InputError, match="System role not supported"):
            backend.generate(QUESTION[:1])

    @pytest.mark.parametrize("device", ["tpu", "cuda:99", "cuda:x", ""])
    def test_a_device_that_is_not_there_raises(self, device: str) -> None:
        with pytest.raises(InputError, match="device"):
            load_backend("sage-tiny", device=device)

    def test_the_interface_is_light_to_import(self) -> None:
        heavy = "{'torch', 'transformers', 'openai', 'PIL', 'numpy'}"
        light = ("backends.base", "backends.scripted", "backends.smollm", "weights.embedded")
        imports = ", ".join(f"sage_ad.vlm.{name}" for name in light)
        code = f"import sys, {imports}; print({heavy} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("text", "stops", "shown"),
    [
        ("a crack", ("###",), 7),
        ("a crack #", ("###",), 8),
        ("a crack ##", ("###", "k"), 8),
        ("x\n", ("\n\n",), 1),
        ("", ("a",), 0),
    ],
)
def test_an_end_that_may_become_a_stop_string_is_held_back(text: str, stops: tuple[str, ...], shown: int) -> None:
    assert safe_length(text, stops) == shown


def test_text_is_cut_before_the_earliest_stop_string() -> None:
    assert cut_at_stop("one two three", ("three", "two")) == ("one ", True)
    assert cut_at_stop("one", ("two",)) == ("one", False)


def _looking(*images: Any) -> list[dict[str, Any]]:
    parts = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "Is there a scratch?"}]}]
