"""Watching a Hugging Face model while it writes: stop strings, text as it grows, and cancellation.

It knows token ids and text; it does not know messages, models or devices (`sage_ad.vlm.backends.huggingface` does).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList

from sage_ad.vlm.backends.base import cut_at_stop, safe_length

_UNFINISHED = "�"


class Watcher(StoppingCriteria):
    """Is asked after every token whether each text of a batch is done.

    Args:
        decode: token ids of one text to text, special tokens left out.
        prompt_length: number of leading ids that belong to the prompt (padding counted).
        stops: a text that holds one of these is done.
        cancelled: when set, all texts are done.
        on_text: is given the whole text of row 0 so far, after every token.
    """

    def __init__(
        self,
        decode: Callable[[Any], str],
        prompt_length: int,
        stops: Sequence[str] = (),
        cancelled: threading.Event | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        self.decode, self.prompt_length, self.stops = decode, prompt_length, stops
        self.cancelled, self.on_text = cancelled, on_text

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **_: Any) -> torch.BoolTensor:
        rows, device = input_ids.shape[0], input_ids.device
        if self.cancelled is not None and self.cancelled.is_set():
            return torch.ones(rows, dtype=torch.bool, device=device)  # type: ignore[return-value]
        done = [False] * rows
        if self.stops or self.on_text:
            texts = [self.decode(ids) for ids in input_ids[:, self.prompt_length :]]
            done = [cut_at_stop(text, self.stops)[1] for text in texts]
            if self.on_text:
                self.on_text(texts[0])
        return torch.tensor(done, dtype=torch.bool, device=device)  # type: ignore[return-value]

    def as_list(self) -> StoppingCriteriaList:
        """In the form that `generate` takes."""
        return StoppingCriteriaList([self])


def stream_text(
    write: Callable[[Callable[[str], None], threading.Event], str], stops: Sequence[str] = ()
) -> Iterator[str]:
    """Runs `write` in a thread and yields its text piece by piece.

    Args:
        write: is given a callable that takes the whole text so far, and an event that asks it to end; returns the
            final text (cut at the stop string).
        stops: an end of the text that may be the beginning of one of these is held back until it is known.

    Yields:
        Pieces that joined together are the final text. Closing the iterator sets the event and waits for the thread,
        so that nothing runs on behind the caller's back.
    """
    pieces: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    cancelled = threading.Event()

    def run() -> None:
        try:
            pieces.put(("end", write(lambda text: pieces.put(("text", text)), cancelled)))
        except BaseException as error:
            pieces.put(("error", error))

    worker = threading.Thread(target=run, name="sage-stream", daemon=True)
    worker.start()
    shown = ""
    try:
        while True:
            kind, value = pieces.get()
            if kind == "error":
                raise value
            if kind == "end":
                if rest := value[len(shown) :]:
                    yield rest
                return
            text, _ = cut_at_stop(value, stops)
            text = text[: safe_length(text, stops)].rstrip(_UNFINISHED)
            # A character of several tokens shows as a mark until it is whole: only what has grown is passed on.
            if len(text) > len(shown) and text.startswith(shown):
                yield text[len(shown) :]
                shown = text
    finally:
        cancelled.set()
        worker.join()
