"""`sage-serve`: inspections over HTTP, for lines and other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sage_ad.vlm.backends.base import DEFAULT_BACKEND
from sage_ad.vlm.commandline import quiet_libraries, run_app
from sage_ad.vlm.errors import InputError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8080,
    model: Annotated[
        str, typer.Option(help="sage-tiny, a Hugging Face name or folder, or http://host:port/v1#model.")
    ] = DEFAULT_BACKEND,
    judge: Annotated[str, typer.Option(help="Judge of the answers: local, or http://host:port/v1#model.")] = "local",
    keys: Annotated[
        Path | None, typer.Option(help="File with the keys of clients, one a line; SAGE_SERVE_KEYS holds some, too.")
    ] = None,
    parallel: Annotated[int, typer.Option(help="Inspections at the same time; the others wait their turn.")] = 1,
    waiting: Annotated[int, typer.Option(help="Inspections that may wait; more are refused with 503.")] = 64,
    waiting_each: Annotated[
        int, typer.Option(help="The same of one key (or address); more are refused with 429.")
    ] = 32,
    max_megabytes: Annotated[int, typer.Option(help="Largest picture.")] = 25,
    max_references: Annotated[int, typer.Option(help="Most references of one inspection.")] = 40,
    max_parts: Annotated[int, typer.Option(help="Most parts in one batch.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Serves POST /inspect, POST /batch, GET /products, /health and /metrics; / explains them."""
    quiet_libraries()
    from sage_ad.demo.server.settings import ServerSettings, read_keys

    settings = ServerSettings(
        host=host,
        port=port,
        model=model,
        judge=judge,
        keys=read_keys(keys),
        parallel=parallel,
        waiting=waiting,
        waiting_each=waiting_each,
        max_megabytes=max_megabytes,
        max_references=max_references,
        max_parts=max_parts,
        seed=seed,
        device=device,
    )
    if settings.open_to_others:
        print("Warning: everybody who reaches this address can use it; --keys asks for a key.", file=sys.stderr)
    try:
        from sage_ad.demo.server.app import run_server
    except ImportError as error:
        raise InputError(
            f"The service needs {error.name}, which is not installed; run: pip install 'sage-ad[serve]'."
        ) from None
    run_server(settings)


def main() -> None:
    """Entry point of `sage-serve`."""
    run_app(app, on_interrupt="The service is closed.")
