"""Trying again what may pass: failures of a served model sorted, waited out, and put into one sentence."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from sage_ad.vlm.errors import BackendError, one_line

T = TypeVar("T")
_PASSING = (408, 409, 425, 429)
# A server that asks for more patience than this is reported rather than waited for.
LONGEST_WAIT = 60.0


class Retrying:
    """Calls a server, again where another try can help.

    Waiting before try n is `backoff * 2**(n - 1)` seconds times a random number from 0.5 to 1 (so that many clients do
    not come back at once), and never less than the server's `Retry-After`.

    Args:
        url: address for messages.
        retries: the most new tries after the first.
        backoff: seconds, see above.
        secret: is replaced by *** wherever a message would show it.
        sleep: how to wait, for tests.
    """

    def __init__(
        self, url: str, *, retries: int, backoff: float, secret: str = "", sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.url, self.retries, self.backoff = url, retries, backoff
        self._secret, self._sleep = secret, sleep
        # Not the global generator: waiting must not change anybody's seeded results.
        self._jitter = random.Random()

    def call(self, attempt: Callable[[], T], cancelled: threading.Event | None = None) -> T:
        """The attempt's result; raises `BackendError` when it fails for good, too often, or after it was cancelled."""
        for tries in range(1, self.retries + 2):
            try:
                return attempt()
            except BackendError:
                raise
            except Exception as error:
                if isinstance(error.__cause__, BackendError):  # our own, from inside of the client
                    raise error.__cause__ from None
                if not may_pass(error):
                    raise self.sentence(error, tries) from error
                asked = retry_after(error)
                if tries > self.retries or (asked or 0.0) > LONGEST_WAIT:
                    raise self.sentence(error, tries, asked) from error
                pause = max(asked or 0.0, self.backoff * 2 ** (tries - 1) * self._jitter.uniform(0.5, 1.0))
                if cancelled is None:
                    self._sleep(pause)
                elif cancelled.wait(pause):
                    raise self.sentence(error, tries) from error
        raise AssertionError("unreachable: the last try returns or raises")

    @contextmanager
    def as_sentences(self) -> Iterator[None]:
        """Turns failures inside into `BackendError`, without another try."""
        try:
            yield
        except (BackendError, GeneratorExit):
            raise
        except Exception as error:
            raise self.sentence(error, 1) from error

    def sentence(self, error: Exception, tries: int, asked: float | None = None) -> BackendError:
        """The failure as one sentence that names the server, what is wrong and what to do, without the key."""
        what, cure = _describe(error)
        times = f" after {tries} tries" if tries > 1 else ""
        wait = f" and asks to wait {asked:.0f} s" if asked and asked > LONGEST_WAIT else ""
        text = f"The server at {self.url} {what}{times}{wait}; {cure}."
        return BackendError(text.replace(self._secret, "***") if self._secret else text)


def may_pass(error: Exception) -> bool:
    """Whether another try may go better: lost connections, time-outs, overload, unreadable replies."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.status_code in _PASSING or error.status_code >= 500
    return isinstance(error, (openai.APIConnectionError, openai.APIResponseValidationError, json.JSONDecodeError))


def retry_after(error: Exception, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Seconds that the server asks to wait (`Retry-After` as a number or a date); None if it does not say."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None)
    value = headers.get("retry-after") if headers is not None else None
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - now()).total_seconds())


def _describe(error: Exception) -> tuple[str, str]:
    """What went wrong and what can be done, as two parts of a sentence."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return "did not answer in time", "check its load, or allow it a longer time-out"
    if isinstance(error, openai.APIConnectionError):
        root = _root(error)
        cause = os.strerror(root.errno) if isinstance(root, ConnectionError) and root.errno else one_line(root)
        return f"cannot be reached ({cause})", "check that it runs and that the address is right"
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return f"refuses the key (status {error.status_code})", "set SAGE_API_KEY to a valid one"
    if isinstance(error, openai.RateLimitError):
        return "has too many requests (status 429)", "try again later or lower the concurrency"
    if isinstance(error, openai.NotFoundError):
        return f"does not know the model or address ({_said(error)})", "check both in http://host:port/v1#model"
    if isinstance(error, openai.APIStatusError):
        cure = "look into its log" if error.status_code >= 500 else "change the request accordingly"
        return f"failed with status {error.status_code} ({_said(error)})", cure
    if isinstance(error, (json.JSONDecodeError, openai.APIResponseValidationError)):
        return "sent a reply that cannot be read", "check that it speaks the OpenAI chat protocol"
    return f"failed while answering ({one_line(error)})", "look into its log and try again"


def _root(error: BaseException) -> BaseException:
    """The first cause of a failed connection ("Connection refused"), behind what the libraries wrap around it."""
    while True:
        inner = error.__cause__ or error.__context__
        if isinstance(error, BaseExceptionGroup):
            inner = error.exceptions[0]
        if inner is None or (isinstance(error, OSError) and error.errno):
            return error
        error = inner


def _said(error: Any) -> str:
    """What the server itself said, on one line."""
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("error", body)
    message = inner.get("message") if isinstance(inner, dict) else inner
    return one_line(Exception(str(message or error)), limit=200)
