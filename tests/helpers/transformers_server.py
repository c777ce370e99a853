"""`transformers serve` in a process of its own: a public OpenAI-compatible server that takes image parts."""

from __future__ import annotations

import atexit
import functools
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path


class TransformersServer:
    """A running server; it loads whatever model a request names: `ServedBackend(server.url, model=str(folder))`."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        command = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1"]
        settings = ["--port", str(self.port), "--device", "cpu", "--log-level", "error"]
        self.process = subprocess.Popen(
            [*command, *settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        atexit.register(self.stop)
        self._wait()

    def _wait(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(3000):
            assert self.process.poll() is None, "transformers serve ended; is transformers[serving] installed?"
            try:
                opener.open(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise AssertionError("transformers serve did not come up within ten minutes")

    def stop(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait(timeout=10)


@functools.cache
def shared_server() -> TransformersServer:
    """One server for all tests of a run, ended with it."""
    return TransformersServer()
