"""Exit statuses and output of every front door."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys

import pytest
import typer

from sage_ad.vlm.commandline import garbage_left_alone, print_json, run_app
from sage_ad.vlm.errors import BackendError, InputError


def raising(error: BaseException):
    def app() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (InputError("The image a.png\ndoes not exist; check the path."), 2, "Error: The image a.png does not exist"),
        (BackendError("The server is gone."), 2, "Error: The server is gone."),
        (
            OSError(28, "No space left on device"),
            2,
            "Error: A file cannot be written or read (No space left on device); make",
        ),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
            2,
            "Error: A file cannot be",
        ),
        (InputError("There is no a\x1b[2J\u202egnp.\x07."), 2, "Error: There is no a?[2J?gnp.?."),
        (KeyboardInterrupt(), 130, "Interrupted. Saved."),
        (typer.Exit(1), 1, ""),
    ],
)
def test_statuses(error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_app(raising(error), on_interrupt="Saved.")
    assert ended.value.code == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(said)
    assert len(captured.err.splitlines()) <= 1


def test_a_fault_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_app(raising(ZeroDivisionError()))


def test_success_is_zero() -> None:
    with pytest.raises(SystemExit) as ended:
        run_app(lambda: None)
    assert ended.value.code == 0


def test_json_is_one_object_and_no_nan() -> None:
    stream = io.StringIO()
    print_json({"place": "unten links – größer"}, stream)
    assert json.loads(stream.getvalue()) == {"place": "unten links – größer"}
    with pytest.raises(ValueError, match="JSON"):
        print_json({"score": float("nan")}, io.StringIO())


@pytest.mark.parametrize("made", ["plain", "typed"])
def test_a_closed_pipe_is_no_failure(made: str) -> None:
    script = (
        "import typer\nfrom sage_ad.vlm.commandline import run_app\n"
        "def plain():\n    for n in range(200000):\n        print('a line that nobody reads', n)\n"
        f"typed = typer.Typer()\ntyped.command()(plain)\nrun_app({made})"
    )
    ran = subprocess.run(
        f"{sys.executable} -c \"{script}\" | head -1; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 0
    assert ran.stderr == ""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8:strict"])
def test_text_that_a_console_cannot_show_stops_nothing(encoding: str) -> None:
    script = (
        "from sage_ad.vlm.commandline import print_json, run_app\n"
        "def app():\n    print('\\u03a9 \\udcfc')\n    print_json({'product': '\\u03a9'})\n"
        "run_app(app)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=60,
    )
    assert ran.stderr == b""
    shown, _, printed = ran.stdout.decode().partition("\n")
    assert shown in ("? ?", "\u03a9 ?")
    assert json.loads(printed) == {"product": "\u03a9"}


def test_garbage_is_collected_again_after_a_load_that_failed() -> None:
    def load() -> None:
        with garbage_left_alone():
            raise InputError("no model")

    with pytest.raises(InputError):
        load()
    assert gc.isenabled()
    gc.unfreeze()
