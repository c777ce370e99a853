"""Several inspections that ask one back end together: what each asks alone becomes a few calls for all of them.

Each inspection runs in a thread of its own, but only one at a time: it runs until it asks the back end something,
and waits. When all of them wait, their questions are put together (`generate_batch`, `answer_parts`), and each continues
with its own reply. So the graph that inspects one part is the graph that inspects many, and the traces are the same.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sage_ad.agents.resources import Resources, View
from sage_ad.agents.settings import AgentSettings
from sage_ad.vlm.backends.base import LanguageBackend, Message
from sage_ad.vlm.errors import BackendError, InputError

if TYPE_CHECKING:
    from PIL import Image

    from sage_ad.vlm.evidence.peers import PeerEvidence


T = TypeVar("T")

REPLIES_KEPT = 4096
"""Replies to texts without pictures that are kept, since good parts of one product ask the very same thing."""

CALLS_AT_ONCE = 16
"""Calls that cannot be put together (probabilities, structured texts) and are made beside each other."""

_PROBE: list[Message] = [{"role": "user", "content": "Say yes."}]


@dataclass
class _Call:
    """What one inspection asks: `items` are lists of messages or part queries, one reply each."""

    method: str
    items: list[Any]
    settings: dict[str, Any]
    positional: tuple[Any, ...] = ()
    done: threading.Event = field(default_factory=threading.Event)
    replies: list[Any] = field(default_factory=list)
    error: BaseException | None = None


class SharedBackend:
    """A back end in front of another, which puts together what the functions given to `run` ask.

    It has the name, capabilities and methods of the back end behind it (what goes beyond the interface, too); outside of
    `run` it passes everything on.

    Args:
        backend: the back end that answers.

    Attributes:
        down: the error of the back end once it answers nothing any more (a server that vanished), else None.
    """

    def __init__(self, backend: LanguageBackend) -> None:
        self.backend = backend
        self.down: BackendError | None = None
        self._turn = threading.Lock()
        self._unfinished = 0
        self._waiting: list[_Call] = []
        self._replies: OrderedDict[str, Any] = OrderedDict()

    @property
    def name(self) -> str:
        """Name of the back end behind."""
        return self.backend.name

    @property
    def capabilities(self) -> Any:
        """Capabilities of the back end behind."""
        return self.backend.capabilities

    def generate(self, messages: Sequence[Message], **settings: Any) -> str:
        """As `LanguageBackend.generate`."""
        reply: str = self._ask(_Call("generate_batch", [messages], settings))[0]
        return reply

    def stream(self, messages: Sequence[Message], **settings: Any) -> Iterator[str]:
        """As `LanguageBackend.stream`, with the whole text as its only piece."""
        return iter([self.generate(messages, **settings)])

    def generate_batch(self, list_of_messages: Sequence[Sequence[Message]], **settings: Any) -> list[str]:
        """As `LanguageBackend.generate_batch`."""
        return self._ask(_Call("generate_batch", list(list_of_messages), settings))

    def complete(self, messages: Sequence[Message], **settings: Any) -> Any:
        """As `LanguageBackend.complete`; put together where the back end can do that and no schema is at stake."""
        if hasattr(self.backend, "complete_batch") and not self.capabilities.structured:
            settings.pop("json_schema", None)
            return self._ask(_Call("complete_batch", [messages], settings))[0]
        return self._ask(_Call("complete", [messages], settings))[0]

    def choose(self, messages: Sequence[Message], choices: Sequence[str], **settings: Any) -> Any:
        """As `LanguageBackend.choose`; made beside the others' calls, not together with them."""
        return self._ask(_Call("choose", [messages], settings, positional=(choices,)))[0]

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.backend, name)
        return self._answer_parts if name == "answer_parts" else value

    def _answer_parts(self, queries: Sequence[Any], on_text: Any = None, **settings: Any) -> list[Any]:
        """As `SageBackend.answer_parts`; nobody watches one part's words while several are written."""
        if not self._unfinished:
            settings["on_text"] = on_text
        return self._ask(_Call("answer_parts", list(queries), settings))

    def run(self, jobs: Sequence[Callable[[], T]]) -> list[T | Exception]:
        """Runs functions that use this back end, one at a time between their calls.

        Returns:
            What each gave, or the exception that it ended with, in order.
        """
        outcomes: list[Any] = [None] * len(jobs)
        self._unfinished = len(jobs)

        def work(place: int) -> None:
            with self._turn:
                try:
                    outcomes[place] = jobs[place]()
                except Exception as error:
                    outcomes[place] = error
                finally:
                    self._unfinished -= 1
                    self._answer_if_all_wait()

        threads = [
            threading.Thread(target=work, args=(place,), name=f"sage-part-{place}") for place in range(len(jobs))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outcomes

    def _ask(self, call: _Call) -> list[Any]:
        """Puts a call beside the others' and waits for its replies; the turn is another's meanwhile."""
        if not self._unfinished:
            answer_calls([call], self.backend)
        else:
            self._waiting.append(call)
            self._answer_if_all_wait()
            if not call.done.is_set():
                self._turn.release()
                call.done.wait()
                self._turn.acquire()
        if call.error is not None:
            raise call.error
        return call.replies

    def _answer_if_all_wait(self) -> None:
        if not self._waiting or len(self._waiting) < self._unfinished:
            return
        calls, self._waiting = self._waiting, []
        try:
            if self.down is not None:
                _fail(calls, self.down)
            else:
                self.down = answer_calls(calls, self.backend, self._replies)
        finally:
            while len(self._replies) > REPLIES_KEPT:
                self._replies.popitem(last=False)
            for call in calls:
                call.done.set()


def answer_calls(
    calls: Sequence[_Call], backend: LanguageBackend, known: OrderedDict[str, Any] | None = None
) -> BackendError | None:
    """Answers the calls of several inspections with as few calls of the back end as their settings allow.

    Args:
        calls: what is asked; each gets its `replies`, or its `error`.
        backend: the back end that answers.
        known: replies to earlier texts without pictures, by what was asked; read and added to.

    Returns:
        The error of a back end that answers nothing any more; None while it lives.
    """
    groups: dict[str, list[_Call]] = {}
    down: BackendError | None = None
    for call in calls:
        groups.setdefault(call.method + json.dumps(call.settings, sort_keys=True, default=repr), []).append(call)
    for asked, group in groups.items():
        if down is not None:
            _fail(group, down)
            continue
        try:
            _answer_group(asked, group, backend, {} if known is None else known)
        except (BackendError, InputError) as error:
            down = _answer_one_by_one(group, backend, error)
        except Exception as error:
            _fail(group, error)
    return down


def _answer_group(asked: str, group: Sequence[_Call], backend: LanguageBackend, known: Any) -> None:
    """One call for all of a group, where its method can do that."""
    method = group[0].method
    if method in ("complete", "choose"):
        with ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
            for answered in [pool.submit(_answer_alone, call, backend) for call in group]:
                answered.result()
        return
    items = [item for call in group for item in call.items]
    names = [asked + name if (name := _name(item, group[0].settings, backend)) else None for item in items]
    # A text that several parts ask for, or that was asked for before, is written once.
    first = {name: place for place, name in reversed(list(enumerate(names))) if name is not None}
    wanted = [place for place, name in enumerate(names) if name is None or (name not in known and first[name] == place)]
    replies = getattr(backend, method)([items[place] for place in wanted], **group[0].settings) if wanted else []
    found = dict(zip(wanted, replies, strict=True))
    known |= {name: found[place] for place in wanted if (name := names[place]) is not None}
    everything = iter([found[place] if name is None else known[name] for place, name in enumerate(names)])
    for call in group:
        call.replies = [next(everything) for _ in call.items]


def _name(item: Any, settings: Mapping[str, Any], backend: LanguageBackend) -> str | None:
    """What is asked, as text; None where the same words need not get the same reply (pictures, sampling, features)."""
    if settings.get("temperature", 0.0) or not backend.capabilities.deterministic:
        return None
    try:
        return json.dumps(item)
    except (TypeError, ValueError):
        return None


def _answer_alone(call: _Call, backend: LanguageBackend) -> None:
    method = getattr(backend, call.method)
    if call.method in ("complete", "choose"):
        call.replies = [method(call.items[0], *call.positional, **call.settings)]
    else:
        call.replies = list(method(call.items, **call.settings))


def _answer_one_by_one(group: Sequence[_Call], backend: LanguageBackend, error: Exception) -> BackendError | None:
    """After a failure: one bad question must not spoil the others', and a dead server must not be asked for each."""
    if isinstance(error, BackendError):
        try:
            backend.generate(_PROBE, max_new_tokens=2)
        except BackendError:
            _fail(group, error)
            return error
        except InputError as refusal:
            _fail(group, refusal)
            return None
    if len(group) == 1:
        _fail(group, error)
        return None
    for call in group:
        try:
            _answer_alone(call, backend)
        except Exception as own:
            call.error = own
    return None


def _fail(group: Sequence[_Call], error: Exception) -> None:
    for call in group:
        call.error = error


DECODED_AHEAD = 4
"""Pictures that are decoded before their turn; more would only take memory."""


VIEW_BYTES = 400_000_000
"""Memory for pictures and evidence maps of parts that are still being answered; older ones are measured again."""


class BatchResources(Resources):
    """Resources whose back end is asked for several parts together, and whose pictures are decoded ahead.

    Attributes:
        peers: by picture, what tells parts without references from the other parts of their batch.
        sizes: width and height of the pictures that were looked at.
    """

    def __init__(self, settings: AgentSettings, *, same_as: Resources | None = None, **parts: Any) -> None:
        super().__init__(settings, same_as=same_as, **parts)
        self.decoder = Decoder()
        self.peers: Mapping[str, PeerEvidence] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self._shared: SharedBackend | None = None
        self._kept: OrderedDict[tuple[Any, ...], View] = OrderedDict()

    @property
    def backend(self) -> SharedBackend:
        """The language model, asked together."""
        if self._shared is None:
            self._shared = SharedBackend(super().backend)
        return self._shared

    def run(self, jobs: Sequence[Callable[[], T]], *, model: bool) -> list[T | Exception]:
        """What each function gave, or the exception that it ended with; with `model`, they ask the language model together."""
        if model:
            return self.backend.run(jobs)
        outcomes: list[T | Exception] = []
        for job in jobs:
            try:
                outcomes.append(job())
            except Exception as error:
                outcomes.append(error)
        return outcomes

    def view(self, image: Path, references: Sequence[Path]) -> View:
        """Measures a part; the views of parts that are still being answered are kept while there is room."""
        from sage_ad.vlm.images import in_range, shared_brightness

        key = (str(image), *map(str, references))
        if key in self._kept:
            return self._kept[key]
        picture = self.decoder.take(image)
        brightness = shared_brightness([image, *references])
        picture = in_range(picture, image, brightness)
        self.sizes[str(image)] = picture.size
        pictures, bank = self.bank(references, brightness)
        peers = None if references else self.peers.get(str(image))
        self._kept[key] = self._extract(picture, pictures, bank, brightness, peers)
        while len(self._kept) > 1 and sum(map(_size, self._kept.values())) > VIEW_BYTES:
            self._kept.popitem(last=False)
        return self._kept[key]

    def forget_views(self) -> None:
        """Forgets the parts that were looked at (not the references)."""
        self._kept.clear()
        super().forget_views()


class Decoder:
    """Decodes pictures in threads before they are asked for; safe to use from several threads."""

    def __init__(self, ahead: int = DECODED_AHEAD) -> None:
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="sage-decode")
        self._ahead = ahead
        self._lock = threading.Lock()
        self._next: deque[str] = deque()
        self._futures: dict[str, Future[Image.Image]] = {}

    def will_need(self, paths: Iterable[str]) -> None:
        """Pictures that will be asked for, in this order."""
        with self._lock:
            known = {*self._next, *self._futures}
            self._next.extend(path for path in dict.fromkeys(paths) if path not in known)
            self._fill()

    def take(self, path: Path) -> Image.Image:
        """The picture, decoded already or now; raises `InputError` if it cannot be read."""
        from sage_ad.vlm.images import load_image

        with self._lock:
            if str(path) in self._next:
                self._next.remove(str(path))
            future = self._futures.pop(str(path), None)
            self._fill()
        return future.result() if future else load_image(path)

    def forget(self, paths: Iterable[str]) -> None:
        """Pictures that nobody will ask for any more."""
        with self._lock:
            for path in paths:
                self._futures.pop(path, None)
            self._fill()

    def _fill(self) -> None:
        from sage_ad.vlm.images import load_image

        while self._next and len(self._futures) < self._ahead:
            name = self._next.popleft()
            self._futures[name] = self._pool.submit(load_image, name)


def _size(view: View) -> int:
    """Bytes of a view, about: picture and map by the pixel, features by the patch."""
    features = view.evidence.features
    return 7 * view.image.width * view.image.height + 4 * int(getattr(features, "nbytes", 0))
