"""Settings of the service: what it takes, from whom, and how much of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from sage_ad.demo.services.settings import DemoSettings
from sage_ad.vlm.errors import InputError

KEYS_VARIABLE = "SAGE_SERVE_KEYS"
"""Environment variable with the keys of clients, commas between them."""

SHORTEST_KEY = 16


@dataclass(frozen=True)
class ServerSettings(DemoSettings):
    """How the service is run; models, uploads and places for work as for the demo.

    Attributes:
        keys: who may call; none lets everybody in who reaches the address.
        max_parts: most pictures in one batch.
        max_request_megabytes: largest request, all its pictures together.
    """

    port: int = 8080
    waiting: int = 64
    waiting_each: int = 32
    keys: tuple[str, ...] = field(default=(), repr=False)
    max_parts: int = 200
    max_request_megabytes: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in self.keys:
            if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
                raise InputError(f"A key must have {SHORTEST_KEY} or more letters, digits and signs, and no space.")

    @property
    def open_to_others(self) -> bool:
        """Whether anybody on the network can call it."""
        return not self.keys and self.host not in ("127.0.0.1", "localhost", "::1")


def read_keys(file: Path | None) -> tuple[str, ...]:
    """Keys of a file, one a line (# begins a remark), and of the environment.

    Raises:
        InputError: the file cannot be read, or holds none.
    """
    keys = [key.strip() for key in os.environ.get(KEYS_VARIABLE, "").split(",") if key.strip()]
    if file is not None:
        try:
            lines = [line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"The keys in {file} cannot be read ({type(error).__name__}); check the path.") from None
        if not any(lines):
            raise InputError(f"{file} holds no key; write one a line, or leave out --keys.")
        keys += [line for line in lines if line]
    return tuple(dict.fromkeys(keys))
