"""What the demo takes from strangers, and what it refuses: files, names, and claims of who they are."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.pictures.formats import ENDINGS, is_sniffed

if TYPE_CHECKING:
    from sage_ad.evaluation.inspection import InspectionTrace

MAX_TEXT = 2000
"""Longest text of one field in characters."""

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_TOKEN = re.compile(r"[0-9a-f]{32}")


def inside(path: str | Path, folder: Path) -> Path:
    """The path, if it lies in the folder once all links are followed.

    Raises:
        InputError: it lies elsewhere; the message does not tell whether it exists.
    """
    real = Path(path).resolve()
    if not real.is_relative_to(folder.resolve()):
        raise InputError("This file was not uploaded here; upload the picture itself instead of naming a path.")
    return real


def check_picture(path: str | Path, uploads: Path, *, max_bytes: int, max_pixels: int) -> Path:
    """Refuses what is no readable picture of bearable size, before an inspection waits for its turn.

    Raises:
        InputError: one sentence with the file's own name (never its path on the server).
    """
    from sage_ad.vlm.images import load_image

    real = inside(path, uploads)
    name = real.name
    # Programs often send a picture as "image" or "blob", without an ending.
    if real.suffix.lower() not in ENDINGS and (real.suffix or not is_sniffed(real)):
        known = ", ".join(ENDINGS)
        raise InputError(f"{name} has the ending {real.suffix or '(none)'!r}; give a picture ({known}).")
    if real.is_file() and real.stat().st_size > max_bytes:
        raise InputError(f"{name} is larger than {max_bytes // 2**20} MB; scale it down or save it as JPEG.")
    try:
        load_image(real, max_pixels=max_pixels)
    except InputError as error:
        raise InputError(without_folders(str(error), real)) from None
    return real


def without_folders(text: str, *paths: str | Path) -> str:
    """The text with the given paths cut down to file names: visitors need not know the server's folders."""
    for path in paths:
        text = text.replace(str(path), Path(path).name)
    return text


def without_places(text: str) -> str:
    """A message without the server's own folders, which a full disk or a damaged store would name."""
    from sage_ad.vlm.paths import cache_home, data_home

    for place in (data_home(), cache_home()):
        text = text.replace(f"{place}/", "").replace(str(place), "its folder")
    return text


def short_source(source: str) -> str:
    """A fact's source with file names instead of whole paths ("/srv/x/manual.pdf, page 3" -> "manual.pdf, page 3")."""
    return "; ".join(_last(part) for part in source.split("; "))


def _last(part: str) -> str:
    if not re.match(r"/|\\|[A-Za-z]:[/\\]", part):  # packs of the project name their files by relative paths
        return part
    name, comma, rest = part.partition(", ")
    return re.split(r"[/\\]", name)[-1] + comma + rest


def plain_trace(trace: InspectionTrace) -> dict[str, Any]:
    """The trace as JSON values, with file names in place of the server's paths."""
    values = trace.model_dump(mode="json")
    values["image"] = Path(trace.image).name
    values["references"] = [Path(path).name for path in trace.references]
    for fact in values["facts"]:
        fact["source"] = short_source(fact["source"])
    return values


def without_controls(value: Any) -> Any:
    """A text without control characters and without marks that turn the order of letters round ("gnp.exe"); else the value."""
    return type(value)(_UNSEEN.sub("", value)) if isinstance(value, str) and _UNSEEN.search(value) else value


def check_text(text: str | None, what: str, limit: int = MAX_TEXT) -> str:
    """The text without surrounding space; refuses overlong ones with one sentence."""
    text = without_controls(text or "").strip()
    if len(text) > limit:
        raise InputError(f"{what} has {len(text)} characters, and more than {limit} are not taken; shorten it.")
    return text


def questions_of(text: str | None) -> list[str]:
    """One question a line; there may be none."""
    lines = [line.strip() for line in check_text(text, "The questions").splitlines() if line.strip()]
    if len(lines) > 10:
        raise InputError(f"{len(lines)} questions are too many for one inspection; ask at most ten.")
    return lines


def owner_of(token: Any, request: Any) -> str:
    """Name of the folder that is this visitor's own: by login, else by the browser's secret, else by the session.

    Args:
        token: the 32 hexadecimal digits that the browser keeps; anything else is ignored.
        request: Gradio's request.
    """
    if user := getattr(request, "username", None):
        claim = f"user:{user}"
    elif isinstance(token, str) and _TOKEN.fullmatch(token):
        claim = f"browser:{token}"
    else:
        claim = f"session:{getattr(request, 'session_hash', None) or 'none'}"
    return hashlib.sha256(claim.encode()).hexdigest()[:24]


def is_token(token: Any) -> bool:
    """Whether this is a browser's secret as `owner_of` takes it."""
    return isinstance(token, str) and bool(_TOKEN.fullmatch(token))


def escaped(text: str) -> str:
    """The text as HTML shows it; Gradio's messages would otherwise read markup in it."""
    return html.escape(text, quote=True)


def reference_paths(gallery: Sequence[Any] | None) -> list[str]:
    """Paths of the pictures in a Gradio gallery's value."""
    return [str(item[0] if isinstance(item, (tuple, list)) else item) for item in gallery or []]
