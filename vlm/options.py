"""Options declared once: each field of a dataclass is an option with its help, a key of `--config FILE`, and an attribute.

    @dataclass
    class Bake:
        out: Path = option(help="Folder of the loaf.")
        minutes: int = option(40, help="Time in the oven.", min=1)

        def __post_init__(self) -> None:
            check_options(self, Bake)

    app.command()(options_command(Bake, bake))  # def bake(options: Bake, json: bool) -> None

The command line wins over the file, the file over the defaults. A `Literal` has choices; a `tuple[X, ...]` may be given
several times.
"""

from __future__ import annotations

import difflib
import inspect
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer

from sage_ad.vlm.errors import InputError

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def option(default: Any = MISSING, *, help: str, **more: Any) -> Any:
    """A field of a dataclass of options.

    Args:
        default: without it the option is required.
        help: one sentence for `--help`.
        more: `min`, the least number, or `above`, which it must exceed; `metavar` makes the field a positional argument.
    """
    return field(default=default, metadata={"help": help, **more})


def options_command(options: type[T], run: Callable[[T, bool], None]) -> Callable[..., None]:
    """A function for `typer.Typer.command` whose options are the fields of a dataclass, `--config FILE` and `--json`.

    Args:
        options: the dataclass.
        run: is given the options and whether `--json` was given; its docstring is the command's help.
    """
    hints = get_type_hints(options)
    declared = {one.name: one for one in fields(options)}  # type: ignore[arg-type]
    repeated = {name for name in declared if get_origin(hints[name]) is tuple}

    def read(context: typer.Context, file: Path | None) -> Path | None:
        if file is not None:
            context.default_map = {
                key: _as_given(key, value, declared, key in repeated) for key, value in _read_file(file).items()
            }
        return file

    def command(config: Path | None, json: bool, **values: Any) -> None:
        run(options(**{name: tuple(v or ()) if name in repeated else v for name, v in values.items()}), json)

    config = typer.Option(help="YAML file with options, as in learning_rate: 0.0002.", callback=read, is_eager=True)
    own = [_parameter(name, hints[name], one.default, one.metadata) for name, one in declared.items()]
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            *sorted(own, key=lambda parameter: parameter.default is not parameter.empty),
            _keyword("config", Annotated[Path | None, config], None),
            _keyword("json", Json, False),
        ]
    )
    command.__doc__ = run.__doc__
    return command


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    empty = inspect.Parameter.empty if default is MISSING else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=empty, annotation=annotation)


def _parameter(name: str, hint: Any, default: Any, metadata: Mapping[str, Any]) -> inspect.Parameter:
    """A field as a parameter that Typer understands."""
    if "metavar" in metadata:
        info: Any = typer.Argument(help=metadata["help"], metavar=metadata["metavar"], show_default=False)
    else:
        info = typer.Option(help=metadata["help"])
    if get_origin(hint) is tuple:
        hint, default = list[get_args(hint)[0]], default if default is MISSING else list(default)  # type: ignore[misc]
    return _keyword(name, Annotated[hint, info], default)


def _read_file(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        InputError: the file cannot be read or holds no mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"The options in {file} cannot be read ({str(error).splitlines()[0]}).") from None
    if not isinstance(values, dict):
        raise InputError(f"The file {file} holds no options; write lines such as 'learning_rate: 0.0002'.")
    return values


def _as_given(key: Any, value: Any, declared: dict[str, Field[Any]], repeated: bool) -> str | list[str] | None:
    """A value of the file as it would stand on the command line, so that both are checked alike."""
    if key not in declared:
        nearest = difflib.get_close_matches(str(key), declared, 1, cutoff=0)
        raise InputError(f"There is no option {key!r}; the nearest is {nearest[0]} (--help lists all of them).")
    if value is None and declared[key].default is None:
        return None
    items = value if repeated and isinstance(value, list) else [value]
    if any(item is None or isinstance(item, (dict, list)) for item in items):
        raise InputError(f"The option {key} cannot be {value!r} in a file; give one value{' or a list' * repeated}.")
    return [str(item) for item in items] if repeated else str(value)


def check_options(options: Any, declared: type) -> None:
    """Checks values by what their fields say, so that Python, the command line and a file refuse the same.

    Args:
        options: an instance of `declared` or of a class that has its fields too.
        declared: the dataclass whose fields are checked.

    Raises:
        InputError: a value is none of its choices, out of range, or no number where one is meant.
    """
    hints = get_type_hints(declared)
    for one in fields(declared):
        value, choices = getattr(options, one.name), get_args(hints[one.name])
        if get_origin(hints[one.name]) is Literal and value not in choices:
            raise InputError(f"{one.name}={value!r} is not offered; use one of: {', '.join(choices)}.")
        for bound, fits in (("min", operator.ge), ("above", operator.gt)):
            limit = one.metadata.get(bound)
            if limit is not None and value is not None and not (fits(value, limit) and value < math.inf):
                words = f"from {limit} up" if bound == "min" else f"above {limit}"
                raise InputError(f"{one.name}={value} has no meaning; give a number {words}.")
