"""What every request meets first, before its body is read: the key, the largest size, and the counters of `/metrics`."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

OPEN = ("/", "/health", "/openapi.json")
"""Paths that need no key: they tell nothing of anybody's parts."""

WHO = "sage.who"
"""Where the request's state names its caller: a digest of the key, or the address."""


class Front:
    """ASGI middleware around the application.

    Args:
        app: the application.
        keys: keys that are accepted, as `X-API-Key` or bearer token; none: no key is asked for.
        max_bytes: largest body.
        registry: where requests are counted.
    """

    def __init__(self, app: Any, keys: Sequence[str], max_bytes: int, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter

        self.app, self.max_bytes = app, max_bytes
        # Digests: comparing them tells nothing of a key by its time, and no key can be printed by mistake.
        self._keys = {_digest(key.encode()) for key in keys}
        self._requests = Counter("sage_requests", "Requests by path and status.", ["path", "status"], registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def counted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        headers = dict(scope["headers"])
        who = self._who(headers, scope)
        scope.setdefault("state", {})[WHO] = who or "anybody"
        try:
            if who is None and scope["path"] not in OPEN:
                await refuse(counted, 401, "Give your key in the header X-API-Key, or as a bearer token.")
            elif int(headers.get(b"content-length", b"0")) > self.max_bytes:
                await refuse(counted, 413, self._too_large())
            else:
                await self.app(scope, self._bounded(receive), counted)
        finally:
            self._requests.labels(getattr(scope.get("route"), "path", "other"), str(status)).inc()

    def _who(self, headers: dict[bytes, bytes], scope: Scope) -> str | None:
        """Who calls; None if a key is asked for and none of ours was given."""
        if not self._keys:
            return str((scope.get("client") or ("nobody",))[0])
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = headers.get(b"x-api-key") or (token if scheme.lower() == b"bearer" else b"")
        digest = _digest(given.strip())
        return digest if digest in self._keys else None

    def _too_large(self) -> str:
        return f"The request is larger than {self.max_bytes // 2**20} MB; send fewer or smaller pictures."

    def _bounded(self, receive: Receive) -> Receive:
        from starlette.exceptions import HTTPException

        taken = 0

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.max_bytes:
                raise HTTPException(413, self._too_large())
            return message

        return bounded


def _digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[:24]


async def refuse(send: Send, status: int, sentence: str) -> None:
    """Answers with one sentence."""
    from starlette.responses import JSONResponse

    async def nothing() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    await JSONResponse({"detail": sentence}, status, headers)({"type": "http"}, nothing, send)
