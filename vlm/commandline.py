"""What every front door (`sage-inspect`, `sage-kb`, `sage-eval`, ...) does alike: exit statuses, logs, one JSON object.

It knows nothing of inspection; it stands in the lowest room because all the others may import it.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from sage_ad.vlm.errors import SageError

if TYPE_CHECKING:
    import typer

EXIT_OK = 0
EXIT_LISTED_FAILURES = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def run_app(app: Callable[..., Any], *, on_interrupt: str = "Nothing was left half-written.") -> None:
    """Runs a Typer app (or any callable) and turns its outcome into the exit statuses of the command-line grammar.

    Args:
        app: the callable; a Typer app is called with `standalone_mode=False`, so that its errors pass through here.
        on_interrupt: one sentence that says what was saved and how to resume, printed after Ctrl-C.

    Raises:
        SystemExit: always: 0 done, 1 done with listed failures (`typer.Exit(1)`), 2 bad input, 130 interrupted.
    """
    import typer

    # A console or pipe of another encoding (Windows, a plain C locale) gets question marks for what it cannot show.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # Typer carries its own copy of click's errors; this is their public common base, whichever copy it is.
    usage_error: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
    # A typo on the command line and a bad picture read alike: one line, no frame, no usage text around it.
    try:
        status = _with_version(app)(standalone_mode=False) if isinstance(app, typer.Typer) else app()
        sys.stdout.flush()  # here, where a closed pipe or a full disk is still dealt with
    except SageError as error:
        fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        print(f"Interrupted. {on_interrupt}", file=sys.stderr)
        raise SystemExit(EXIT_INTERRUPTED) from None
    except usage_error as error:
        fail(error.format_message())
    except typer.Exit as error:
        raise SystemExit(error.exit_code) from None
    except (BrokenPipeError, SystemExit) as error:
        # Typer makes of a broken pipe an exit of its own, with status 1.
        if not isinstance(error if isinstance(error, OSError) else error.__context__, BrokenPipeError):
            raise
        # The reader of our pipe (`| head`) went away: that is no failure, and there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(EXIT_OK) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        fail(
            f"{error.filename or 'A file'} cannot be written or read ({error.strerror}); make room, mend its rights or name "
            "another place."
        )
    except Exception as error:
        # What safetensors and torch raise where the disk is full are no OSErrors.
        if not any(
            sign in str(error)
            for sign in ("No space left on device", "PytorchStreamWriter failed", "inline_container.cc")
        ):
            raise
        fail("A file cannot be written (No space left on device); make room or name another place.")
    if status == EXIT_INTERRUPTED:
        # Typer turns Ctrl-C inside a command into this status, without a word.
        print(f"Interrupted. {on_interrupt}", file=sys.stderr)
    raise SystemExit(status if isinstance(status, int) else EXIT_OK)


def end_at_once(status: str | int | None) -> NoReturn:
    """Ends the process without taking modules and models apart, which takes a third of a second; nothing may be left to do."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else EXIT_OK)


def _with_version(app: typer.Typer) -> Any:
    """The command of a Typer app, with `--version` among its options."""
    import typer
    from typer.main import get_command

    def show(context: typer.Context, asked: bool) -> None:
        if asked:
            print(f"{context.find_root().info_name} {version('sage-ad')}")
            raise typer.Exit

    show.__annotations__["context"] = typer.Context  # imported here, where Typer does not look for it
    carrier = typer.Typer(add_completion=False)
    asked_for = typer.Option(False, "--version", callback=show, is_eager=True, help="Show the version and exit.")
    carrier.command()(lambda version=asked_for: None)
    command, (option,) = get_command(app), get_command(carrier).params
    option.expose_value = False
    command.params.append(option)
    return command


def fail(message: str) -> None:
    """Prints one line on standard error and ends with status 2 (bad input)."""
    print("Error: " + printable(" ".join(message.split())), file=sys.stderr)
    raise SystemExit(EXIT_BAD_INPUT)


def printable(text: str) -> str:
    """One line of text whose control characters, which a terminal would obey, are question marks."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def print_json(value: Any, stream: TextIO | None = None) -> None:
    """Prints one JSON object and nothing else (NaN and infinities are refused: they are no JSON)."""
    out = stream or sys.stdout
    unicode = (out.encoding or "utf-8").lower().startswith("utf")
    json.dump(value, out, ensure_ascii=not unicode, allow_nan=False, indent=2)
    out.write("\n")
    out.flush()


@contextlib.contextmanager
def garbage_left_alone() -> Iterator[None]:
    """Looks for no garbage inside the block, in which a command imports and loads, nor among its objects afterwards.

    Modules and models are millions of objects that stay; to look through them again and again takes a fifth of a cold start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def quiet_libraries() -> None:
    """Keeps progress bars and advice of libraries out of our output; call before a heavy library is imported."""
    # GNU OpenMP's threads spin while they wait; beside one busy neighbour on two cores that makes decoding several
    # times slower than a bounded spin does.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("transformers").setLevel(logging.ERROR)


def stop_on_terminate() -> None:
    """A polite kill (SIGTERM, as service managers send) stops a program as Ctrl-C does: what it began is tidied up."""
    import signal

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
