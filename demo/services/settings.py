"""Settings of the demo: who may reach it, what it loads, how much it takes and how long it keeps what it was given."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from sage_ad.demo.services.fair_queue import MAX_WAITING, MAX_WAITING_EACH
from sage_ad.demo.services.models import shipped_models, two_stages
from sage_ad.vlm.backends.base import DEFAULT_BACKEND
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.evidence.encoders import DEFAULT_ENCODER
from sage_ad.vlm.paths import data_home

PASSWORD_VARIABLE = "SAGE_DEMO_PASSWORD"
"""Environment variable with the password of `--user`: on a command line every process could read it."""


@dataclass(frozen=True)
class DemoSettings:
    """How the demo is served.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        model: the model that answers; `also`: further ones that visitors may choose to compare.
        device, encoder, judge, seed: as for `sage-inspect`.
        share: whether Gradio's tunnel gives it a public address.
        mcp: whether its functions are MCP tools too.
        user, password: who may log in; None lets everybody in who reaches the address.
        parallel: inspections at the same time; the others wait, and each visitor gets a turn.
        waiting: requests that may wait; `waiting_each`: of one visitor.
        keep_minutes: uploads are deleted when they are older than this.
        max_megabytes: largest file that may be uploaded; `max_pixels`: largest picture.
        max_references: most good parts for one inspection.
        home: folder of what is kept: runs, rankings, documents.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    model: str = DEFAULT_BACKEND
    also: tuple[str, ...] = ()
    device: str = "auto"
    encoder: str = DEFAULT_ENCODER
    judge: str = "local"
    seed: int = 0
    share: bool = False
    mcp: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    parallel: int = 1
    waiting: int = MAX_WAITING
    waiting_each: int = MAX_WAITING_EACH
    keep_minutes: int = 60
    max_megabytes: int = 25
    max_pixels: int = 40_000_000
    max_references: int = 40
    home: Path = field(default_factory=lambda: data_home() / "demo")

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"The port {self.port} does not exist; give --port a number from 0 to 65535.")
        numbers = (
            "parallel",
            "waiting",
            "waiting_each",
            "keep_minutes",
            "max_megabytes",
            "max_pixels",
            "max_references",
        )
        for name in numbers:
            if getattr(self, name) < 1:
                raise InputError(f"{name.replace('_', '-')} is {getattr(self, name)}; give 1 or more.")
        if bool(self.user) != bool(self.password):
            raise InputError(f"A login needs both a name and a password: give --user NAME and set {PASSWORD_VARIABLE}.")
        if self.mcp and self.user:
            # Gradio's MCP server calls its own page without anybody's login: behind a password no tool would work.
            raise InputError("MCP tools cannot ask for a password yet; leave out either --mcp or --user.")

    @property
    def models(self) -> list[str]:
        """Names of the models that visitors may choose, the default first; there are no others for them."""
        return list(dict.fromkeys((self.model, *self.also, *shipped_models())))

    @property
    def stages(self) -> tuple[str, str] | None:
        """A model of stage 1 and one of stage 2 (E-DPO) to compare; None where there is no such pair."""
        return two_stages(self.models)

    @property
    def open_to_others(self) -> bool:
        """Whether people who are not at this machine can reach it without a password."""
        return not self.user and (self.share or self.host not in ("127.0.0.1", "localhost", "::1"))


def password_from_environment(user: str | None) -> str | None:
    """The password that belongs to `--user`.

    Raises:
        InputError: a user was named and the variable is not set.
    """
    if user is None:
        return None
    password = os.environ.get(PASSWORD_VARIABLE, "")
    if not password:
        raise InputError(f"The user {user!r} has no password; set the environment variable {PASSWORD_VARIABLE}.")
    return password
