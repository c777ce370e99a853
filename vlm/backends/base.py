"""One interface behind which every language model stands: embedded, from Hugging Face, or served behind a URL.

What a back end cannot do is a declared capability (`Capabilities`), never a silent downgrade. This module is light:
the libraries of a back end are imported when `load_backend` makes it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from sage_ad.vlm.errors import BackendError, InputError

Message = Mapping[str, Any]
"""{"role": "system" | "user" | "assistant", "content": text, or a list of parts}; a part is either
{"type": "text", "text": ...} or {"type": "image", "image": PIL image or path}."""

ROLES = ("system", "user", "assistant")
DEFAULT_BACKEND = "sage-tiny"
UNTUNED = "smollm2-135m"
"""The embedded language model as it comes, before any training of ours."""


@dataclass(frozen=True)
class Capabilities:
    """What a back end can do.

    Attributes:
        images: reads image parts of messages.
        soft_facts: takes facts as embeddings through fusion attention (SAGE models only).
        logprobs: gives probabilities of next words (`choose` then needs no sampling).
        streaming: `stream` yields text while it is written, rather than once at the end.
        structured: `complete(json_schema=...)` can hold the model to a schema (where the server accepts it).
        deterministic: temperature 0, or the same seed, gives the same text again.
        writes_facts: knows enough to write facts about a product that no pack knows.
    """

    images: bool = False
    soft_facts: bool = False
    logprobs: bool = False
    streaming: bool = False
    structured: bool = False
    deterministic: bool = True
    writes_facts: bool = False


@dataclass(frozen=True)
class Completion:
    """One written text and what it took.

    Attributes:
        text: the text, cut before the first stop string.
        finish: "stop" (the model ended, or a stop string came) or "length" (cut at `max_new_tokens`).
        prompt_tokens, completion_tokens: counted by the model; None where a server does not say.
        structured: True if the server held the text to the JSON schema that was asked for.
    """

    text: str
    finish: Literal["stop", "length"] = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    structured: bool = False


@dataclass(frozen=True)
class Choice:
    """Probabilities of given answers, summing to 1 over them.

    Attributes:
        probabilities: answer to probability, in the order asked.
        how: "logprobs" (from the model's own distribution) or "sampling" (relative frequency in `samples` draws).
        samples: number of draws that named one of the answers; 0 for "logprobs".
    """

    probabilities: dict[str, float]
    how: Literal["logprobs", "sampling"]
    samples: int = 0


class UndecidedError(BackendError):
    """A model's replies begin with none of the answers that it was given to choose from."""


@dataclass
class Usage:
    """Requests and tokens of a back end since it was made; safe to add to from several threads."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, prompt_tokens: int | None, completion_tokens: int | None, requests: int = 1) -> None:
        """Counts finished requests; unknown token numbers count as 0."""
        with self._lock:
            self.requests += requests
            self.prompt_tokens += prompt_tokens or 0
            self.completion_tokens += completion_tokens or 0


class Completing:
    """What back ends share that have `complete`: their text is that of the completion."""

    def generate(self, messages: Sequence[Message], **settings: Any) -> str:
        """Writes a text (see `LanguageBackend.generate`)."""
        done: Completion = self.complete(messages, **settings)  # type: ignore[attr-defined]
        return done.text


@dataclass(frozen=True)
class Sampling:
    """How a text is written: the settings that all back ends take.

    Attributes:
        max_new_tokens: limit of the text, 1 or more.
        temperature: 0 (greedy) to 5.
        stop: the text ends before the first of these strings; one string, or several.
        seed: of the draws.

    Raises:
        InputError: a setting is out of range.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    stop: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}; give 1 or more.")
        if not 0.0 <= self.temperature <= 5.0:
            raise InputError(f"temperature is {self.temperature}; give a number from 0 (greedy) to 5.")
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        if "" in self.stop:
            raise InputError("A stop string is empty; leave it out or give one with text.")


@runtime_checkable
class LanguageBackend(Protocol):
    """A language model that writes text for messages.

    All methods raise `InputError` for messages that it cannot take (an image for a text model, a prompt longer than its
    context) and `BackendError` for a failure of the model or server. Text is never cut on the way in.
    """

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def generate(self, messages: Sequence[Message], **settings: Any) -> str:
        """Writes a text; the settings are those of `Sampling`."""
        ...

    def stream(self, messages: Sequence[Message], **settings: Any) -> Iterator[str]:
        """Yields the same text piece by piece; closing the iterator ends the work behind it."""
        ...

    def generate_batch(self, list_of_messages: Sequence[Sequence[Message]], **settings: Any) -> list[str]:
        """Writes a text for each list of messages, in order."""
        ...

    def complete(
        self, messages: Sequence[Message], *, json_schema: Mapping[str, Any] | None = None, **settings: Any
    ) -> Completion:
        """As `generate`, with token counts; a JSON schema binds the text where `capabilities.structured` says so."""
        ...

    def choose(self, messages: Sequence[Message], choices: Sequence[str], *, seed: int = 0) -> Choice:
        """How probable each of the given answers is as the beginning of the reply (for instance "True" and "False")."""
        ...


def known_backends() -> str:
    """What `load_backend` takes, as half a sentence for messages."""
    return (
        "'sage-tiny', 'smollm2-135m', the folder of a checkpoint, a Hugging Face name or folder, or the URL of an "
        "OpenAI-compatible server (http://host:port/v1#model)"
    )


def check_messages(messages: Sequence[Message], *, images: bool, name: str) -> list[dict[str, Any]]:
    """Messages in one form, each content a list of parts; images are loaded as RGB.

    Raises:
        InputError: the messages are empty or malformed, or hold an image where `images` is False.
    """
    if not messages:
        raise InputError("There are no messages to answer; give at least one {'role': 'user', 'content': ...}.")
    checked = []
    for message in messages:
        role = message.get("role")
        if role not in ROLES:
            raise InputError(f"A message has the role {role!r}; use one of: {', '.join(ROLES)}.")
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, Sequence) or isinstance(parts, (str, bytes)):
            raise InputError(
                f"The content of a {role} message must be text or a list of parts, not {type(content).__name__}."
            )
        checked.append({"role": role, "content": [_check_part(part, images=images, name=name) for part in parts]})
    return checked


def _check_part(part: Any, *, images: bool, name: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind != "image" or part.get("image") is None:
        raise InputError(
            'A part of a message must be {"type": "text", "text": ...} or {"type": "image", "image": ...}.'
        )
    if not images:
        raise InputError(
            f"{name} reads no images, but a message holds one; describe it in words or give a model with vision."
        )
    image = part["image"]
    if not hasattr(image, "convert"):
        from sage_ad.vlm.images import load_image

        image = load_image(image)
    return {"type": "image", "image": image.convert("RGB")}


def plain_text(message: Mapping[str, Any]) -> str:
    """The text parts of a checked message, joined by line breaks."""
    return "\n".join(part["text"] for part in message["content"] if part["type"] == "text")


def check_choices(choices: Sequence[str]) -> None:
    """Checks the answers given to `choose`; raises `InputError` unless there are two different ones, none empty."""
    if len(set(choices)) < 2 or len(set(choices)) != len(choices) or not all(choice.strip() for choice in choices):
        raise InputError(
            f"The choices {list(choices)!r} cannot be distinguished; give at least two different, none empty."
        )


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop string in it, and whether there was one."""
    found = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return (text[: min(found)], True) if found else (text, False)


def safe_length(text: str, stops: Sequence[str]) -> int:
    """How many leading characters of a growing text can be shown: its end may be the beginning of a stop string."""
    longest = max((len(stop) for stop in stops), default=1)
    for held in range(min(longest - 1, len(text)), 0, -1):
        if any(stop.startswith(text[-held:]) for stop in stops):
            return len(text) - held
    return len(text)


__all__ = [
    "DEFAULT_BACKEND",
    "BackendError",
    "Capabilities",
    "Choice",
    "Completion",
    "LanguageBackend",
    "Message",
    "Sampling",
    "UndecidedError",
    "Usage",
]
