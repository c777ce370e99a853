"""A language model behind an OpenAI-compatible URL (vLLM, SGLang, llama.cpp, hosted services) as a back end.

Requests are retried with back-off where another try can help, limited in number at a time, and bounded in time. The key
comes from the environment (`SAGE_API_KEY`, else `OPENAI_API_KEY`) and appears in no message, name or log of ours.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any
from urllib.parse import urlsplit

from sage_ad.vlm.backends.background_loop import background_loop, run_call, start_call
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
    safe_length,
)
from sage_ad.vlm.backends.retries import Retrying
from sage_ad.vlm.errors import BackendError, InputError, one_line

KEY_VARIABLES = ("SAGE_API_KEY", "OPENAI_API_KEY")
# What hosted services take at most; more are obeyed by cutting the text here.
_MAX_STOPS = 4
_DRAWS, _FIRST_DRAWS = 16, 4
LONGEST_REPLY, LONGEST_TIME = 16 * 2**20, 10.0
"""A reply of more bytes, or one that comes in drops for so many time-outs, is given up."""
# How servers say that a model has no eyes (vLLM, llama.cpp, Ollama, hosted services); a picture that is merely too
# large or broken is refused in other words.
_IS_BLIND = re.compile(
    r"not (?:a )?(?:multi-?modal|vision)|\bimages?(?:_url)?(?: inputs?)? (?:is|are) (?:not|only) supported|"
    r"(?:not|n't|found that) support (?:images?|vision|multi-?modal)\b|mmproj|required for image|at most 0 image",
    re.IGNORECASE,
)


class ServedBackend(Completing):
    """A served model behind the interface `sage_ad.vlm.backends.base.LanguageBackend`; safe to use from several threads.

    Args:
        url: base address, with the version ("http://host:8000/v1").
        model: the model's name there; None takes the server's only model.
        timeout: seconds without any sign from the server after which a request is given up (and tried again).
        retries: how often a request is tried again after a failure that may pass (time-out, lost connection, 408, 409,
            429, 5xx, unreadable reply).
        backoff: seconds before the first new try; doubled each time, with jitter; the server's `Retry-After`
            counts more.
        concurrency: the most requests under way at once.
        image_side: pictures whose longer side has more pixels are reduced to it before they are sent (PNG).

    Raises:
        InputError: the address is none, or the server offers several models and none was named.
        BackendError: the server was asked for its models and did not answer.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        timeout: float = 120.0,
        retries: int = 4,
        backoff: float = 0.5,
        concurrency: int = 8,
        image_side: int = 2048,
    ) -> None:
        import openai

        self.url = _check_url(url)
        self.concurrency, self.image_side = concurrency, image_side
        self.usage = Usage()
        key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), "")
        self._retrying = Retrying(self.url, retries=retries, backoff=backoff, secret=key)
        # Tries are counted here, where they can be distinguished, and not once more inside the client.
        background_loop()
        self._client = openai.AsyncOpenAI(
            base_url=self.url,
            api_key=key or "none",
            max_retries=0,
            timeout=openai.Timeout(timeout, connect=min(timeout, 10.0)),
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [_bounded(self.url, timeout)]}),
        )
        self._slots = threading.BoundedSemaphore(concurrency)
        self._refused: set[str] = set()
        self.model = model or self._only_model()

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> ServedBackend:
        """Makes a back end from "http://host:port/v1#model"; without "#model" the server's only model is taken."""
        address, _, model = url.partition("#")
        return cls(address, model or None, **settings)

    @property
    def name(self) -> str:
        """The model's name and where it is served."""
        return f"{self.model} at {self.url}"

    @property
    def capabilities(self) -> Capabilities:
        """What a server of this kind can do, less what this one has been seen to refuse or to ignore.

        Whether the *model* can see is not said by servers: one that cannot answers a picture with an error.
        """
        return Capabilities(
            images="images" not in self._refused,
            logprobs="logprobs" not in self._refused,
            streaming=True,
            structured="response_format" not in self._refused,
            deterministic=False,
            writes_facts=True,
        )

    def complete(
        self,
        messages: Sequence[Message],
        *,
        json_schema: Mapping[str, Any] | None = None,
        cancelled: threading.Event | None = None,
        **settings: Any,
    ) -> Completion:
        """Writes a text, with the server's token counts.

        With a JSON schema the server is asked to hold the text to it; if it refuses the schema, the same request is
        sent without (the schema should stand in the prompt too), and `Completion.structured` is False. Once `cancelled`
        is set, the request is given up (its connection closes) and nothing is tried again.
        """
        wanted = Sampling(**settings)
        body = self._body(messages, wanted)
        if json_schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": dict(json_schema), "strict": True},
            }
        with self._slots:
            reply, sent = self._retrying.call(lambda: run_call(self._send(body), cancelled), cancelled)
        done = self._completion(reply, wanted.stop, structured="response_format" in sent)
        if "response_format" in sent and not done.structured and done.finish == "stop" and not wanted.stop:
            self._refused.add("response_format")  # it took the schema and wrote what it liked
        return done

    def stream(self, messages: Sequence[Message], **settings: Any) -> Iterator[str]:
        """Yields the text as it arrives; closing the iterator closes the connection, which ends the work there.

        A connection that breaks off after the first piece is a `BackendError`: a second try would say something else.
        """
        wanted = Sampling(**settings)
        body = self._body(messages, wanted) | {"stream": True, "stream_options": {"include_usage": True}}
        return self._pieces(body, wanted.stop)

    def generate_batch(self, list_of_messages: Sequence[Sequence[Message]], **settings: Any) -> list[str]:
        """Writes a text for each list of messages, several requests at a time; the first failure ends the batch."""
        return self._together(list_of_messages, [settings] * len(list_of_messages))

    def choose(self, messages: Sequence[Message], choices: Sequence[str], *, seed: int = 0) -> Choice:
        """Probabilities of the choices as the reply's beginning: from `logprobs` where offered, else from 16 draws.

        Raises:
            UndecidedError: the replies begin with none of the choices.
        """
        check_choices(choices)
        if "logprobs" not in self._refused:
            chances = self._choose_by_logprobs(messages, choices, seed)
            if chances is not None:
                return Choice(chances, how="logprobs")
        return self._choose_by_draws(messages, choices, seed)

    def _together(self, lists: Sequence[Sequence[Message]], settings: Sequence[dict[str, Any]]) -> list[str]:
        """A text for each list of messages under its own settings, in order, as many at a time as are allowed."""
        if not lists:
            return []
        cancelled = threading.Event()
        with ThreadPoolExecutor(max_workers=min(self.concurrency, len(lists))) as pool:
            waiting = [
                pool.submit(self.generate, messages, cancelled=cancelled, **own)
                for messages, own in zip(lists, settings, strict=True)
            ]
            try:
                # Whichever fails first, not the first in the list: its neighbours may be slow.
                done, _ = wait(waiting, return_when=FIRST_EXCEPTION)
                for one in done:
                    one.result()
                return [one.result() for one in waiting]
            except BaseException:
                # Also after Ctrl-C: what waits is dropped, what runs is given up.
                cancelled.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _only_model(self) -> str:
        try:
            models = sorted(self._retrying.call(lambda: run_call(self._model_names())))
        except BackendError as error:
            if not hasattr(error.__cause__, "status_code"):
                raise
            cause = str(error).rstrip(".")
            raise BackendError(f"{cause} (it could not list its models; name one as {self.url}#model).") from error
        if len(models) != 1:
            offered = ", ".join(models) or "none"
            raise InputError(f"The server at {self.url} offers these models: {offered}; name one as {self.url}#model.")
        return models[0]

    async def _model_names(self) -> list[str]:
        return [model.id for model in (await self._client.models.list()).data]

    def _body(self, messages: Sequence[Message], wanted: Sampling) -> dict[str, Any]:
        checked = check_messages(messages, images=self.capabilities.images, name=self.name)
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": m["role"], "content": self._content(m["content"])} for m in checked],
            "temperature": wanted.temperature,
            "seed": wanted.seed,
            "max_completion_tokens" if "max_tokens" in self._refused else "max_tokens": wanted.max_new_tokens,
        }
        if wanted.stop:
            body["stop"] = list(wanted.stop[:_MAX_STOPS])
        return body

    def _content(self, parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
        """Parts in the server's form; text alone as a plain string, which every server takes."""
        if all(part["type"] == "text" for part in parts):
            return "\n".join(part["text"] for part in parts)
        return [
            part
            if part["type"] == "text"
            else {"type": "image_url", "image_url": {"url": _data_url(part["image"], self.image_side)}}
            for part in parts
        ]

    async def _send(self, body: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """One try, and the request that was accepted: what a server may not know is taken back where it refuses it."""
        import openai

        body = {key: value for key, value in body.items() if key not in self._refused}
        try:
            return await self._create(body), body
        except openai.APIStatusError as refusal:
            if _has_pictures(body) and _IS_BLIND.search(str(refusal)):
                self._refused.add("images")
                said = one_line(refusal, limit=200)
                raise BackendError(
                    f"{self.name} reads no pictures ({said}); describe them in words or name a model with vision."
                ) from refusal
            if refusal.status_code not in (400, 404, 415, 422, 501):
                raise
            simpler = _without_refused(body, str(refusal))
            if simpler is None:
                raise
            # Only if the simpler request goes through was it this that the server refused.
            reply = await self._create(simpler)
            self._refused |= set(body) - set(simpler)
            return reply, simpler

    def _create(self, body: dict[str, Any]) -> Awaitable[Any]:
        return self._client.chat.completions.create(**body)

    def _completion(self, reply: Any, stops: Sequence[str], *, structured: bool) -> Completion:
        text, stopped = cut_at_stop(_text_of(reply, self.name), stops)
        usage = getattr(reply, "usage", None)
        done = Completion(
            text=text,
            finish="length" if reply.choices[0].finish_reason == "length" and not stopped else "stop",
            prompt_tokens=getattr(usage, "prompt_tokens", None),
            completion_tokens=getattr(usage, "completion_tokens", None),
            structured=structured and _is_json(text),
        )
        self.usage.add(done.prompt_tokens, done.completion_tokens)
        return done

    def _pieces(self, body: dict[str, Any], stops: Sequence[str]) -> Iterator[str]:
        with self._slots:
            response, _ = self._retrying.call(lambda: run_call(self._send(body)))
            text, shown, finished = "", 0, False
            try:
                for chunk in self._chunks(response):
                    text += chunk.choices[0].delta.content or ""
                    finished = finished or chunk.choices[0].finish_reason is not None
                    cut, stopped = cut_at_stop(text, stops)
                    safe = len(cut) if stopped or finished else safe_length(text, stops)
                    if safe > shown:
                        yield cut[shown:safe]
                        shown = safe
                    if stopped:
                        return
            finally:
                start_call(response.close())
            if not finished:
                raise BackendError(
                    f"The reply of {self.name} broke off after {len(text)} characters without an end; try again."
                )

    def _chunks(self, response: Any) -> Iterator[Any]:
        """The pieces of a streamed reply that hold text, and the tokens counted; failures become sentences."""

        async def following() -> Any:
            return await anext(response, None)

        with self._retrying.as_sentences():
            while (chunk := run_call(following())) is not None:
                if getattr(chunk, "usage", None):
                    self.usage.add(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
                if chunk.choices:
                    yield chunk

    def _choose_by_logprobs(
        self, messages: Sequence[Message], choices: Sequence[str], seed: int
    ) -> dict[str, float] | None:
        """Probabilities from the first token's most likely candidates; None if the server does not tell them.

        With p(t) the probability of candidate t, P(c) = sum of p(t) over the t that begin choice c and no other,
        divided by the sum over all choices.
        """
        body = self._body(messages, Sampling(1, seed=seed)) | {"logprobs": True, "top_logprobs": 20}
        with self._slots:
            reply, _ = self._retrying.call(lambda: run_call(self._send(body)))
        _text_of(reply, self.name, may_be_empty=True)
        found = getattr(reply.choices[0], "logprobs", None)
        if not found or not found.content or not found.content[0].top_logprobs:
            self._refused |= {"logprobs", "top_logprobs"}
            return None
        from math import exp

        chances = dict.fromkeys(choices, 0.0)
        for candidate in found.content[0].top_logprobs:
            token = candidate.token.strip()
            begun = [choice for choice in choices if token and choice.startswith(token)]
            if len(begun) == 1:
                chances[begun[0]] += exp(candidate.logprob)
        total = sum(chances.values())
        return {choice: chance / total for choice, chance in chances.items()} if total else None

    def _choose_by_draws(self, messages: Sequence[Message], choices: Sequence[str], seed: int) -> Choice:
        longest = max(len(choice) for choice in choices)
        draws = [{"max_new_tokens": longest + 4, "temperature": 1.0, "seed": seed + n} for n in range(_DRAWS)]
        texts: list[str] = []
        # A model that begins with none of the choices in the first few draws is not asked for the others.
        for some in (draws[:_FIRST_DRAWS], draws[_FIRST_DRAWS:]):
            texts += [text.strip().lower() for text in self._together([messages] * len(some), some)]
            counts = {choice: sum(text.startswith(choice.lower()) for text in texts) for choice in choices}
            total = sum(counts.values())
            if not total:
                raise UndecidedError(
                    f"None of {len(texts)} replies of {self.name} begins with {' or '.join(map(repr, choices))} "
                    f"(one was {texts[0][:60]!r}); ask for exactly these words."
                )
        return Choice({choice: count / total for choice, count in counts.items()}, how="sampling", samples=total)


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        valid = False
    if not valid:
        raise InputError(f"{url!r} is no server address; give one like http://host:8000/v1#model.")
    if parts.username or parts.password or parts.query:
        raise InputError(
            f"The address of the server at {parts.hostname} holds a user name, password or query; "
            f"leave it out and set the key in the environment as {KEY_VARIABLES[0]}."
        )
    return url.rstrip("/")


def _bounded(url: str, timeout: float) -> Any:
    """A hook of the client under which replies that are too long, in bytes or in time, end with a `BackendError`."""

    async def bound(response: Any) -> None:
        pieces = response.aiter_raw

        async def some(chunk_size: int | None = None) -> AsyncIterator[bytes]:
            size, end = 0, time.monotonic() + LONGEST_TIME * timeout
            async for piece in pieces(chunk_size):
                size += len(piece)
                if size > LONGEST_REPLY or time.monotonic() > end:
                    raise BackendError(
                        f"The reply of the server at {url} does not end (more than {LONGEST_REPLY >> 20} MB or "
                        f"{LONGEST_TIME * timeout:.0f} s); ask for fewer tokens or choose another server."
                    )
                yield piece

        response.aiter_raw = some

    return bound


def _has_pictures(body: dict[str, Any]) -> bool:
    parts = [
        part for message in body["messages"] if isinstance(message["content"], list) for part in message["content"]
    ]
    return any(part["type"] == "image_url" for part in parts)


def _without_refused(body: dict[str, Any], refusal: str) -> dict[str, Any] | None:
    """The request without what the server may have refused; None if there is nothing that could be left out."""
    if "max_completion_tokens" in refusal and "max_tokens" in body:
        simpler = {key: value for key, value in body.items() if key != "max_tokens"}
        return simpler | {"max_completion_tokens": body["max_tokens"]}
    for optional in (("response_format",), ("logprobs", "top_logprobs"), ("stream_options",)):
        if optional[0] in body:
            return {key: value for key, value in body.items() if key not in optional}
    return None


def _text_of(reply: Any, name: str, *, may_be_empty: bool = False) -> str:
    """The text of the first choice of a reply; raises `BackendError` if it has none."""
    choice = next(iter(getattr(reply, "choices", None) or ()), None)
    message = getattr(choice, "message", None)
    text = getattr(message, "content", None) or ""
    ended = getattr(choice, "finish_reason", None) == "stop"
    said = getattr(message, "refusal", None)
    if not said and isinstance(text, str) and (text or ended or (may_be_empty and message is not None)):
        return text
    why = f"it declined: {one_line(Exception(said))}" if said else "its reply holds no text"
    raise BackendError(f"{name} gave no answer ({why}); try again, ask for more tokens or choose another model.")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _data_url(image: Any, side: int) -> str:
    if max(image.size) > side:
        image = image.copy()
        image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
