"""A real local server with the OpenAI chat protocol, in a process of its own, whose faults are planned by the test.

Run as a script it serves; imported, `ServerProcess` starts it and tells it what to do next. A planned reply is a
dictionary: `text`, or `embedded` (the real SmolLM2 writes it); `status`, `headers`, `raw` (body as it stands), `delay`
(seconds), `pause` (between streamed pieces), `drop` (hang up without a word), `cut` (stream only so many pieces, then
hang up), `garbled` (stream something that is no JSON), `refuse` (request fields that are answered with status 400),
`refusal`, `finish`, `logprobs` (word to log-probability), `usage` (false: none).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODEL = "scripted-model"


class ServerProcess:
    """The server in a subprocess; `with ServerProcess() as server: server.plan([...])`."""

    def __enter__(self) -> ServerProcess:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())], stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.root}/v1"
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)

    def plan(self, replies: list[dict[str, Any]] | None = None, **settings: Any) -> None:
        """Forgets everything and plans the next replies; settings: `default` reply, `models` offered."""
        self._ask("/_plan", {"replies": replies or [], **settings})

    def seen(self) -> list[dict[str, Any]]:
        """The chat requests so far: `body` and `headers` (names in lower case)."""
        return self._ask("/_seen")["requests"]

    def peak(self) -> int:
        """The most chat requests that were under way at once."""
        return self._ask("/_seen")["peak"]

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.root + path, data=data, headers={"Content-Type": "application/json"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as reply:
            return json.loads(reply.read())


class State:
    """What is planned and what was seen, shared by the server's threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reset({})

    def reset(self, plan: dict[str, Any]) -> None:
        self.replies = list(plan.get("replies", []))
        self.default = plan.get("default", {"text": "It is so."})
        self.models = plan.get("models", [MODEL])
        self.requests: list[dict[str, Any]] = []
        self.active = self.peak = 0

    def enter(self, request: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self.requests.append(request)
            self.active += 1
            self.peak = max(self.peak, self.active)
            return self.replies.pop(0) if self.replies else self.default

    def leave(self) -> None:
        with self.lock:
            self.active -= 1


STATE = State()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        """Keeps the test's output quiet."""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self.send(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in STATE.models]})
        elif self.path == "/_seen":
            with STATE.lock:
                self.send(200, {"requests": STATE.requests, "peak": STATE.peak})
        else:
            self.send(404, {"error": {"message": f"no such page {self.path}"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/_plan":
            with STATE.lock:
                STATE.reset(body)
            return self.send(200, {})
        reply = STATE.enter({"body": body, "headers": {name.lower(): value for name, value in self.headers.items()}})
        try:
            self.answer(body, reply)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            STATE.leave()

    def answer(self, body: dict[str, Any], reply: dict[str, Any]) -> None:
        time.sleep(reply.get("delay", 0))
        if reply.get("drop"):
            self.close_connection = True
            return
        refused = [name for name in reply.get("refuse", ()) if name in body]
        if refused:
            advice = ", use max_completion_tokens" if refused[0] == "max_tokens" else ""
            return self.send(400, {"error": {"message": f"Unsupported parameter: {refused[0]}{advice}"}})
        if "raw" in reply or reply.get("status", 200) != 200:
            error = {"error": {"message": reply.get("text", "something is wrong")}}
            return self.send(reply.get("status", 200), reply.get("raw", error), reply.get("headers"))
        text = embedded_text(body) if reply.get("embedded") else reply.get("text")
        words = re.findall(r"\s*\S+", text or "")
        if len(words) > (limit := body.get("max_tokens") or body.get("max_completion_tokens") or 999):
            text, reply = "".join(words[:limit]), {"finish": "length", **reply}
        if body.get("stream"):
            self.stream(text or "", reply)
        else:
            self.send(200, completion(text, reply), reply.get("headers"))

    def stream(self, text: str, reply: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        pieces = [text[i : i + 4] for i in range(0, len(text), 4)]
        for number, piece in enumerate(pieces):
            if number == reply.get("cut"):
                self.close_connection = True
                return
            self.event(chunk({"content": piece}, None))
            time.sleep(reply.get("pause", 0))
        if reply.get("garbled"):
            self.event("{not json")
        self.event(chunk({}, reply.get("finish", "stop")))
        self.event({**chunk({}, None), "choices": [], "usage": usage(text)})
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def event(self, data: Any) -> None:
        line = f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()

    def send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def usage(text: str | None) -> dict[str, int]:
    words = len((text or "").split())
    return {"prompt_tokens": 7, "completion_tokens": words, "total_tokens": 7 + words}


def chunk(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": MODEL, "choices": [choice]}


def completion(text: str | None, reply: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": reply.get("refusal")}
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": reply.get("finish", "stop")}
    if "logprobs" in reply:
        top = [{"token": word, "logprob": value, "bytes": None} for word, value in reply["logprobs"].items()]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice]}
    return body if reply.get("usage") is False else {**body, "usage": usage(text)}


def embedded_text(body: dict[str, Any]) -> str:
    """What the embedded model writes; pictures reach it in words, since it reads none."""
    from sage_ad.vlm.backends.smollm import load_smollm2

    messages = []
    for message in body["messages"]:
        parts = message["content"]
        if not isinstance(parts, str):
            parts = "\n".join(part.get("text", "(a picture)") for part in parts)
        messages.append({"role": message["role"], "content": parts})
    length = body.get("max_tokens") or body.get("max_completion_tokens") or 64
    return load_smollm2().generate(messages, max_new_tokens=length, stop=body.get("stop") or ())


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
