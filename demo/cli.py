"""`sage-demo`: serves the demo page, its API and, if asked, its MCP tools."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import sys
from typing import Annotated

import typer

from sage_ad.vlm.backends.base import DEFAULT_BACKEND
from sage_ad.vlm.commandline import quiet_libraries, run_app, stop_on_terminate
from sage_ad.vlm.evidence.encoders import DEFAULT_ENCODER, ENCODER_HELP

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

M_ARENA_MAX = -8
"""glibc's name (malloc.h) for how many heaps its allocator may make."""

HEAPS = 2


@app.command()
def demo(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 7860,
    model: Annotated[
        str, typer.Option(help="sage-tiny, a Hugging Face name or folder, or http://host:port/v1#model.")
    ] = DEFAULT_BACKEND,
    also: Annotated[
        list[str] | None, typer.Option(help="Further model that visitors may choose; may be repeated.")
    ] = None,
    share: Annotated[bool, typer.Option("--share", help="A public address through Gradio's tunnel.")] = False,
    mcp: Annotated[bool, typer.Option("--mcp", help="Serve the same functions as MCP tools.")] = False,
    user: Annotated[str | None, typer.Option(help="Ask for this name and the password in SAGE_DEMO_PASSWORD.")] = None,
    judge: Annotated[str, typer.Option(help="Judge of the answers: local, or http://host:port/v1#model.")] = "local",
    parallel: Annotated[int, typer.Option(help="Inspections at the same time; the others wait their turn.")] = 1,
    keep_minutes: Annotated[int, typer.Option(help="Uploads are deleted when older than this.")] = 60,
    max_megabytes: Annotated[int, typer.Option(help="Largest file that may be uploaded.")] = 25,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    encoder: Annotated[str, typer.Option(help=ENCODER_HELP)] = DEFAULT_ENCODER,
) -> None:
    """Serves the demo: inspect parts, compare settings, teach facts, rank answers, keep reports."""
    quiet_libraries()
    from sage_ad.demo.services.settings import DemoSettings, password_from_environment

    settings = DemoSettings(
        host=host,
        port=port,
        model=model,
        also=tuple(also or ()),
        device=device,
        encoder=encoder,
        judge=judge,
        seed=seed,
        share=share,
        mcp=mcp,
        user=user,
        password=password_from_environment(user),
        parallel=parallel,
        keep_minutes=keep_minutes,
        max_megabytes=max_megabytes,
    )
    if settings.open_to_others:
        print(
            "Warning: everybody who reaches this address can use it and change the knowledge base; "
            "--user asks for a password.",
            file=sys.stderr,
        )
    from sage_ad.demo.app import launch_app

    share_heaps()
    stop_on_terminate()
    # To look for garbage among modules and models takes seconds, and the process ends anyway.
    atexit.register(gc.freeze)
    launch_app(settings)


def share_heaps() -> None:
    """Lets all threads share two heaps where the C library is glibc, which gives each thread one of its own.

    Visitors are served by many threads in turn, and each heap keeps what its thread has freed: without this the server is
    a hundred megabytes larger after a rush than before (`benchmarks/server_load.py`).
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, HEAPS)


def main() -> None:
    """Entry point of `sage-demo`."""
    run_app(app, on_interrupt="The server is closed; runs, facts and rankings are kept.")
