"""A deterministic stand-in for a language model, with which users and we test code that talks to one.

It says what its script holds, remembers what it was asked, and obeys the interface (`vlm.backends.base.LanguageBackend`)
to the letter: stop strings, lengths, capabilities, errors. It knows nothing and needs no weights.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sage_ad.vlm.backends.base import (
    Capabilities,
    Choice,
    Completing,
    Completion,
    Message,
    Sampling,
    UndecidedError,
    Usage,
    check_choices,
    check_messages,
    cut_at_stop,
    plain_text,
)
from sage_ad.vlm.errors import BackendError

Reply = str | Exception
_WORDS = re.compile(r"\s*\S+|\s+$")


class ScriptedBackend(Completing):
    """Answers from a script. A "token" is a word with the white space before it.

    Args:
        replies: what to say, one reply a call, in order (an exception is raised instead of said); or a callable that
            gives the reply for the checked messages (each content a list of parts).
        name: how the back end is called in traces.
        capabilities: what it claims to be able to do.

    Attributes:
        calls: the checked messages of every call so far, in order.

    Example:
        >>> backend = ScriptedBackend(["A crack runs through the cell.", "True."])
        >>> backend.generate([{"role": "user", "content": "What do you see?"}])
        'A crack runs through the cell.'
    """

    def __init__(
        self,
        replies: Sequence[Reply] | Callable[[list[dict[str, Any]]], Reply],
        *,
        name: str = "scripted",
        capabilities: Capabilities | None = None,
    ) -> None:
        if isinstance(replies, str):
            replies = [replies]
        self._replies = replies if callable(replies) else list(replies)
        self._name = name
        self._capabilities = capabilities or Capabilities(images=True, streaming=True, writes_facts=True)
        self._lock = threading.Lock()
        self.calls: list[list[dict[str, Any]]] = []
        self.usage = Usage()

    @property
    def name(self) -> str:
        """How it is called in traces."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """What it claims to be able to do."""
        return self._capabilities

    def complete(
        self, messages: Sequence[Message], *, json_schema: Mapping[str, Any] | None = None, **settings: Any
    ) -> Completion:
        """The next reply, cut at a stop string or after `max_new_tokens` words (which count as tokens)."""
        wanted = Sampling(**settings)
        checked = check_messages(messages, images=self.capabilities.images, name=self._name)
        reply = self._next(checked)
        words = _WORDS.findall(reply)
        text, stopped = cut_at_stop("".join(words[: wanted.max_new_tokens]), wanted.stop)
        done = Completion(
            text=text,
            finish="stop" if stopped or len(words) <= wanted.max_new_tokens else "length",
            prompt_tokens=sum(len(plain_text(message).split()) for message in checked),
            completion_tokens=len(_WORDS.findall(text)),
            structured=json_schema is not None and self.capabilities.structured,
        )
        self.usage.add(done.prompt_tokens, done.completion_tokens)
        return done

    def stream(self, messages: Sequence[Message], **settings: Any) -> Iterator[str]:
        """The next reply word by word (at once if it claims no streaming)."""
        text = self.complete(messages, **settings).text
        return iter(_WORDS.findall(text) if self.capabilities.streaming else [text])

    def generate_batch(self, list_of_messages: Sequence[Sequence[Message]], **settings: Any) -> list[str]:
        """A reply for each list of messages, in order."""
        return [self.generate(messages, **settings) for messages in list_of_messages]

    def choose(self, messages: Sequence[Message], choices: Sequence[str], *, seed: int = 0) -> Choice:
        """Certainty for the choice with which the next reply begins; raises `UndecidedError` if it begins with none."""
        check_choices(choices)
        reply = self.complete(messages, max_new_tokens=10_000, seed=seed).text.strip().lower()
        hits = [choice for choice in choices if reply.startswith(choice.lower())]
        if not hits:
            raise UndecidedError(f"The reply {reply[:60]!r} of {self._name} begins with none of {list(choices)!r}.")
        return Choice({choice: (choice in hits) / len(hits) for choice in choices}, how="sampling", samples=1)

    def _next(self, checked: list[dict[str, Any]]) -> str:
        with self._lock:
            self.calls.append(checked)
            turn = len(self.calls)
            if callable(self._replies):
                reply = self._replies(checked)
            elif turn <= len(self._replies):
                reply = self._replies[turn - 1]
            else:
                raise BackendError(
                    f"The script of {self._name!r} has {len(self._replies)} replies and was asked for number {turn}; "
                    "give it more, or a callable."
                )
        if isinstance(reply, Exception):
            raise reply
        return reply
