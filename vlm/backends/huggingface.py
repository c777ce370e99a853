"""Any Hugging Face model as a back end: text models, and image-text models through their own processor."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from sage_ad.vlm.backends.base import (
    Capabilities,
    Choice,
    Completing,
    Completion,
    Message,
    Sampling,
    Usage,
    check_choices,
    check_messages,
    cut_at_stop,
    known_backends,
    plain_text,
)
from sage_ad.vlm.backends.hf_loading import find_config, load_processor_of, placing, precision_of
from sage_ad.vlm.backends.streaming import Watcher, stream_text
from sage_ad.vlm.devices import pick_device
from sage_ad.vlm.errors import BackendError, InputError, one_line
from sage_ad.vlm.sage.shared_prefix import realign, shared_length

# Prompts of a batch that share at least so many leading tokens have them run through the model once.
SHARED_PREFIX_TOKENS = 32
# Of the facts that the 135M model writes few describe the product rather than repeat the question; above a billion
# parameters models are taken to know more. Whatever is written is checked and stays proposed.
FACT_WRITER_PARAMETERS = 1_000_000_000
# torch's random numbers are global: only one sampled text is written at a time in this process.
_sampling = threading.Lock()


class HuggingFaceBackend(Completing):
    """A language model of the transformers library behind the interface `sage_ad.vlm.backends.base.LanguageBackend`.

    One call runs at a time; calls from other threads wait. Sampling takes a seed and leaves torch's global random
    state as it was.

    Args:
        model: a causal or image-text-to-text model; None where a subclass loads it as its attribute `model`.
        processor: its tokenizer, or its processor (with image processor) if it reads images.
        name: how the model is called in traces and messages.
        batch_size: the most prompts that run through the model at once.
    """

    model: Any

    def __init__(self, model: Any, processor: Any, *, name: str, batch_size: int = 16) -> None:
        if model is not None:
            self.model = model.eval()
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.batch_size = batch_size
        self.usage = Usage()
        self._name = name
        self._lock = threading.Lock()
        self._images = hasattr(processor, "image_processor")
        self._generate_settings: dict[str, Any] = {}
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.convert_ids_to_tokens(0)
        if not getattr(processor, "chat_template", None) and not self.tokenizer.chat_template:
            raise InputError(f"{name} has no chat template, so it takes no messages; give an instruction-tuned model.")

    @cached_property
    def _writes_facts(self) -> bool:
        return sum(own.numel() for own in self.model.parameters()) >= FACT_WRITER_PARAMETERS

    @cached_property
    def _keeps_logits(self) -> bool:
        return "logits_to_keep" in inspect.signature(self.model.forward).parameters

    @classmethod
    def from_pretrained(
        cls, source: str, *, device: str = "auto", dtype: str = "auto", name: str | None = None
    ) -> HuggingFaceBackend:
        """Loads a model as `load_pretrained` does."""
        loaded = load_pretrained(source, device=device, dtype=dtype, name=name)
        return cls(loaded.model, loaded.processor, name=loaded.name)

    @property
    def name(self) -> str:
        """How the model is called in traces."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """What this model can do."""
        return Capabilities(images=self._images, logprobs=True, streaming=True, writes_facts=self._writes_facts)

    def complete(
        self, messages: Sequence[Message], *, json_schema: Mapping[str, Any] | None = None, **settings: Any
    ) -> Completion:
        """As `generate`, with token counts; a schema cannot be enforced here (`capabilities.structured` is False)."""
        del json_schema
        return self._write(self.encode([messages]), Sampling(**settings))[0]

    def stream(self, messages: Sequence[Message], **settings: Any) -> Iterator[str]:
        """Yields the text while it is written; messages are checked before this returns."""
        wanted = Sampling(**settings)
        inputs = self.encode([messages])

        def write(on_text: Callable[[str], None], cancelled: threading.Event) -> str:
            return self._write(inputs, wanted, cancelled=cancelled, on_text=on_text)[0].text

        return stream_text(write, wanted.stop)

    def generate_batch(self, list_of_messages: Sequence[Sequence[Message]], **settings: Any) -> list[str]:
        """Writes a text for each list of messages (see `LanguageBackend.generate_batch`)."""
        return [done.text for done in self.complete_batch(list_of_messages, **settings)]

    def complete_batch(self, list_of_messages: Sequence[Sequence[Message]], **settings: Any) -> list[Completion]:
        """As `generate_batch`, with token counts; what the prompts share at the beginning is read once."""
        wanted = Sampling(**settings)
        counts = [_count_images(messages) for messages in list_of_messages]
        done: dict[int, Completion] = {}
        # Processors want the same number of images in every row.
        for count in sorted(set(counts)):
            rows = [row for row, number in enumerate(counts) if number == count]
            for start in range(0, len(rows), self.batch_size):
                chunk = rows[start : start + self.batch_size]
                written = self._write(self.encode([list_of_messages[row] for row in chunk]), wanted)
                done.update(zip(chunk, written, strict=True))
        return [done[row] for row in range(len(counts))]

    def choose(self, messages: Sequence[Message], choices: Sequence[str], *, seed: int = 0) -> Choice:
        """Probabilities of the choices as the reply's beginning, from the model's own distribution.

        With l_c the log-probability of choice c's tokens after the prompt, P(c) = exp(l_c) / sum of exp(l). Where all
        choices begin with different tokens, these first tokens alone are compared.
        """
        del seed
        check_choices(choices)
        tokens = [self.tokenizer(choice, add_special_tokens=False)["input_ids"] for choice in choices]
        if len({ids[0] for ids in tokens}) == len(tokens):
            tokens = [ids[:1] for ids in tokens]
        inputs = self.encode([messages])
        with self._running():
            if max(map(len, tokens)) == 1:
                last = self._logits(inputs, 1)[-1].log_softmax(-1)
                scores = torch.stack([last[ids[0]] for ids in tokens])
            else:
                scores = torch.stack([self._continuation(inputs, ids) for ids in tokens])
        self.usage.add(int(inputs["attention_mask"].sum()), 0)
        return Choice(dict(zip(choices, scores.softmax(0).tolist(), strict=True)), how="logprobs")

    def _continuation(self, inputs: dict[str, Any], ids: list[int]) -> torch.Tensor:
        """Log-probability of the tokens `ids` after the prompt."""
        more = torch.tensor([ids], device=inputs["input_ids"].device)
        longer = dict(inputs)
        longer["input_ids"] = torch.cat([inputs["input_ids"], more], dim=1)
        longer["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(more)], dim=1)
        if "mm_token_type_ids" in inputs:  # which tokens are pictures: the new ones are not
            longer["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, len(ids)))
        logits = self._logits(longer, len(ids) + 1)[:-1].log_softmax(-1)
        return logits.gather(1, more[0][:, None]).sum()

    def _logits(self, inputs: dict[str, Any], last: int) -> torch.Tensor:
        """(last, vocabulary) logits in float32 at the last positions of the first row."""
        extra = {"logits_to_keep": last} if self._keeps_logits else {}
        return self.model(**inputs, **extra, use_cache=False).logits[0, -last:].float()

    def encode(self, list_of_messages: Sequence[Sequence[Message]]) -> dict[str, Any]:
        """Token ids, mask and pixels of prompts, padded on the left, on the model's device; nothing is ever cut."""
        checked = [check_messages(messages, images=self._images, name=self._name) for messages in list_of_messages]
        prompts = [self._prompt(messages) for messages in checked]
        images = [
            [part["image"] for m in messages for part in m["content"] if part["type"] == "image"]
            for messages in checked
        ]
        # The template has written the special tokens already.
        settings: dict[str, Any] = {"padding": True, "return_tensors": "pt", "add_special_tokens": False}
        if any(images):
            inputs = self.processor(text=prompts, images=images, **settings)
        else:
            inputs = self.tokenizer(prompts, return_token_type_ids=False, **settings)
        return {key: value.to(self._device) for key, value in inputs.items() if hasattr(value, "to")}

    @property
    def _device(self) -> torch.device:
        return self.model.device

    def _prompt(self, messages: list[dict[str, Any]]) -> str:
        """The prompt in the model's own template; one without a system role gets its text in the first user message."""
        from jinja2 import TemplateError

        try:
            return self._template(messages)
        except TemplateError as refusal:
            system = [m for m in messages if m["role"] == "system"]
            rest = [dict(m) for m in messages if m["role"] != "system"]
            if not system or not rest:
                raise InputError(
                    f"The chat template of {self._name} refuses these messages ({one_line(refusal)})."
                ) from refusal
            rest[0]["content"] = [part for m in system for part in m["content"]] + list(rest[0]["content"])
        try:
            return self._template(rest)
        except TemplateError as refusal:
            raise InputError(
                f"The chat template of {self._name} refuses these messages ({one_line(refusal)})."
            ) from refusal

    def _template(self, messages: list[dict[str, Any]]) -> str:
        if not self._images:
            plain = [{"role": m["role"], "content": plain_text(m)} for m in messages]
            return self.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
        shapes = [
            {"role": m["role"], "content": [p if p["type"] == "text" else {"type": "image"} for p in m["content"]]}
            for m in messages
        ]
        return self.processor.apply_chat_template(shapes, tokenize=False, add_generation_prompt=True)

    def _write(
        self,
        inputs: dict[str, Any],
        wanted: Sampling,
        *,
        cancelled: threading.Event | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> list[Completion]:
        """Runs `generate` of the model on prepared inputs, one completion a row."""
        inputs, spent = dict(inputs), inputs["attention_mask"].sum(dim=1)
        self._check_length(int(spent.max()), wanted.max_new_tokens)
        settings: dict[str, Any] = {
            "max_new_tokens": wanted.max_new_tokens,
            "pad_token_id": self.tokenizer.pad_token_id,
        }
        if wanted.temperature:
            settings |= {"do_sample": True, "temperature": wanted.temperature}
        else:
            settings |= {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        with self._running(wanted.seed if wanted.temperature else None):
            if cancelled is not None and cancelled.is_set():
                return [Completion("")]
            if set(inputs) == {"input_ids", "attention_mask"} and len(spent) > 1:
                inputs |= self._read_shared_prefix(inputs)
            length = inputs["input_ids"].shape[1]
            watcher = Watcher(self._decode, length, wanted.stop, cancelled, on_text)
            settings |= self._generate_settings
            written = self.model.generate(**inputs, **settings, stopping_criteria=watcher.as_list())[:, length:]
        done = [self._completion(ids, wanted.stop, int(number)) for ids, number in zip(written, spent, strict=True)]
        self.usage.add(sum(d.prompt_tokens or 0 for d in done), sum(d.completion_tokens or 0 for d in done), len(done))
        return done

    def _completion(self, ids: torch.Tensor, stops: Sequence[str], prompt_tokens: int) -> Completion:
        ends = self.model.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        tokens: list[int] = ids.tolist()
        ended = next((place for place, token in enumerate(tokens) if token in ends), None)
        text, stopped = cut_at_stop(self._decode(tokens if ended is None else tokens[:ended]), stops)
        return Completion(
            text=text,
            finish="stop" if stopped or ended is not None else "length",
            prompt_tokens=prompt_tokens,
            completion_tokens=len(tokens) if ended is None else ended + 1,
        )

    def _decode(self, ids: Any) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _check_length(self, prompt_tokens: int, max_new_tokens: int) -> None:
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if limit and prompt_tokens + max_new_tokens > limit:
            raise InputError(
                f"The prompt has {prompt_tokens} tokens, and {max_new_tokens} more are asked for, but {self._name} "
                f"holds {limit}; give fewer facts, a smaller picture or a smaller max_new_tokens."
            )

    def _read_shared_prefix(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Runs the tokens that all prompts of a batch share once; gives the inputs with cache and realigned prompts."""
        from transformers.cache_utils import DynamicLayer

        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        prompts = [row[keep.bool()] for row, keep in zip(ids, mask, strict=True)]
        shared = shared_length(prompts)
        if shared < SHARED_PREFIX_TOKENS:
            return {}
        extra = {"logits_to_keep": 1} if self._keeps_logits else {}
        cache = self.model(input_ids=prompts[0][None, :shared], use_cache=True, **extra).past_key_values
        if not all(type(layer) is DynamicLayer for layer in getattr(cache, "layers", [None])):
            return {}  # sliding windows and recurrent states cannot be repeated for prompts of other lengths
        cache.batch_repeat_interleave(len(prompts))
        new_ids, new_mask = realign(prompts, shared, self.tokenizer.pad_token_id)
        return {"input_ids": new_ids, "attention_mask": new_mask, "past_key_values": cache}

    @contextmanager
    def _running(self, seed: int | None = None) -> Iterator[None]:
        """Holds the model (and, for sampling, torch's random state), without gradients; failures become sentences."""
        with self._lock, torch.inference_mode():
            try:
                if seed is None:
                    yield
                    return
                devices = [self._device] if self._device.type == "cuda" else []
                with _sampling, torch.random.fork_rng(devices=devices):
                    torch.manual_seed(seed)
                    yield
            except (RuntimeError, IndexError) as error:
                raise BackendError(
                    f"{self._name} failed on {self._device} while writing ({one_line(error)}); "
                    "try a shorter prompt, a smaller batch or another device."
                ) from error


def _count_images(messages: Sequence[Message]) -> int:
    parts = [part for m in messages if not isinstance(m.get("content"), str) for part in m.get("content") or ()]
    return sum(1 for part in parts if isinstance(part, Mapping) and part.get("type") == "image")


@dataclass(frozen=True)
class LoadedModel:
    """A model with its processor (a tokenizer, where it reads no images) and the name that it goes by."""

    model: Any
    processor: Any
    name: str


def load_pretrained(source: str, *, device: str = "auto", dtype: str = "auto", name: str | None = None) -> LoadedModel:
    """Loads a model by Hugging Face name (from the local cache if it is there) or from a folder.

    Args:
        source: name or folder. A checkpoint that is quantised already (GPTQ, AWQ, FP8, bitsandbytes) stays so.
        device: "auto" (all GPUs, where one is too small for it), "cpu", "cuda" or "cuda:1".
        dtype: "auto" (the checkpoint's; float16 becomes bfloat16 on a CPU), a torch dtype's name, or "8bit" or
            "4bit", which quantise the weights while they load (needs the package bitsandbytes).
        name: how to call it; default: the name, or the folder's name.

    Raises:
        InputError: there is no such model, it is none that writes text, or what it needs is not installed.
        BackendError: its weights cannot be loaded.
    """
    from sage_ad.vlm.commandline import quiet_libraries

    quiet_libraries()
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.utils import logging

    import sage_ad.vlm.sage.processing_sage  # noqa: F401 (makes SAGE models known to the Auto classes)

    logging.disable_progress_bar()
    place = pick_device(device)
    config, local = find_config(source)
    vision = type(config) in AutoModelForImageTextToText._model_mapping
    auto = AutoModelForImageTextToText if vision else AutoModelForCausalLM
    if type(config) not in auto._model_mapping:
        raise InputError(f"{source!r} is a {config.model_type} model, which writes no text; give {known_backends()}.")
    placed = placing(place, spread=device == "auto")
    try:
        processor = load_processor_of(source, config, vision=vision, local=local)
        model: Any = auto.from_pretrained(
            source, local_files_only=local, trust_remote_code=False, **placed, **precision_of(dtype, config, place)
        )
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, UnpicklingError) as error:
        raise BackendError(
            f"The model {source!r} cannot be loaded on {place} ({one_line(error)}); "
            "check that its folder is complete and that it fits into memory."
        ) from error
    called = name or (Path(source).name if Path(source).is_dir() else source)
    return LoadedModel(model, processor, called)
