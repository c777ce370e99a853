"""The pictures of a pack: `looks/good/*`, `looks/<defect>/*`, and `looks.yaml` with what each shows.

    looks.yaml
      - file: stain/3f2a9c01d4e8.png     # named by content, so that the same picture cannot be added twice
        defect: stain                    # null: a good part
        product: woven cloth
        box: [120, 80, 190, 150]         # where it is, in pixels; optional
        source: "line 3, November"

Pictures and list are what counts; embeddings are derived from them (`sage_ad.knowledge.looks.index`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from sage_ad.knowledge.facts import check_domain_name
from sage_ad.knowledge.store.packs import SHIPPED, read_pack
from sage_ad.knowledge.store.product_match import name_key
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.files import write_whole
from sage_ad.vlm.paths import data_home

if TYPE_CHECKING:
    from PIL import Image

LIST = "looks.yaml"
GOOD = "good"


class Look(BaseModel):
    """One picture of a pack.

    Attributes:
        file: path below the pack's `looks` folder.
        defect: name of the defect that it shows; None for a good part.
        product: name of the product.
        box: x0, y0, x1, y1 of the defect in pixels, x1 and y1 exclusive; None: where the picture departs from good ones.
        source: where the picture comes from.
        added: date, ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    defect: str | None = None
    product: str
    box: tuple[int, int, int, int] | None = None
    source: str = ""
    added: str = ""

    @field_validator("file")
    @classmethod
    def _inside(cls, value: str) -> str:
        if Path(value).is_absolute() or ".." in Path(value).parts:
            raise ValueError("must be a path below the pack's looks folder")
        return value

    @field_validator("added", mode="before")
    @classmethod
    def _text(cls, value: Any) -> str:
        return str(value)


@dataclass(frozen=True)
class Added:
    """What `add_looks` did: the new looks, and the files that the pack held already."""

    new: list[Look]
    known: list[Path]


def looks_folder(domain: str) -> Path:
    """Folder of a domain's pictures in the user's pack (it need not exist)."""
    return data_home() / "domains" / check_domain_name(domain) / "looks"


def content_name(data: bytes) -> str:
    """Name under which a pack keeps the picture with this content."""
    return hashlib.sha256(data).hexdigest()[:16]


def product_names(domain: str, product: str) -> set[str]:
    """The `name_key` of every name that a pack has for a product."""
    own = name_key(product)
    for path in (data_home() / "domains" / domain / "pack.yaml", SHIPPED / domain / "pack.yaml"):
        for term in read_pack(path).products if path.is_file() else ():
            if own in (names := {name_key(name) for name in term.names}):
                return names
    return {own}


def read_looks(folder: Path) -> list[Look]:
    """All pictures of a `looks` folder; none if it does not exist.

    Raises:
        InputError: the list cannot be read, or names a file that is missing.
    """
    path = folder / LIST
    if not path.is_file():
        return []
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8")) or []
        looks = [Look.model_validate(row) for row in rows]
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, ValidationError) as error:
        raise InputError(f"{path} cannot be read ({_first_line(error)}); mend or delete it.") from None
    missing = [look.file for look in looks if not (folder / look.file).is_file()]
    if missing:
        raise InputError(f"{path} names {missing[0]}, which is missing; put it back or delete its entry.")
    return looks


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error).splitlines()[0]


def add_looks(
    domain: str,
    product: str,
    pictures: Iterable[Path],
    *,
    defect: str | None,
    boxes: Sequence[tuple[int, int, int, int] | None] | None = None,
    source: str = "",
    replace: bool = False,
) -> Added:
    """Adds pictures of good parts (`defect` None) or of one defect to the user's pack of a domain.

    Args:
        domain: the pack; a new one is made, with the product's name in its `pack.yaml`.
        product: what the pictures show.
        pictures: files that `sage_ad.vlm.images.load_image` reads; copied as they are. A page of a file with several
            becomes a picture of its own.
        defect: name of the defect, or None.
        boxes: where it is, one for each picture.
        source: where the pictures come from.
        replace: a picture that the pack holds as something else, or elsewhere, is from now on what is said here.

    Raises:
        InputError: a picture cannot be read, or is known as something else or of another product; then nothing is added.
    """
    from sage_ad.vlm.images import load_image

    files = list(pictures)
    if not files:
        raise InputError("There is no picture to add; name at least one file.")
    if not product.strip():
        raise InputError("Looks need the name of a product; give it with --product.")
    if not product.strip().isprintable():
        raise InputError(f"The product {product!r} has control characters in its name; give it without.")
    name = None if defect is None else " ".join(defect.split())
    if name is not None and (not re.search(r"\w", name) or name.casefold() == GOOD):
        raise InputError(f"{defect!r} is no name of a defect; give one, or --good for good parts.")
    folder = looks_folder(domain)
    where = GOOD if name is None else re.sub(r"[^\w-]+", "-", name.casefold()).strip("-")
    contents: list[tuple[Path, bytes, str]] = []
    for path in files:
        image = load_image(path)  # a file that is no picture is refused before anything is written
        size = image.size
        data, ending = _content(path, image)
        contents.append((path, data, f"{where}/{content_name(data)}{ending}"))
        box = None if boxes is None else boxes[len(contents) - 1]
        if box is not None and not inside(box, size):
            raise InputError(f"The box {box} does not lie in {path} ({size[0]} x {size[1]} pixels).")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        looks = read_looks(folder)
        held = {Path(look.file).stem: look for look in looks}
        if not replace:
            names = product_names(domain, product)
            for path, _, file in contents:
                look = held.get(Path(file).stem)
                if look and (look.defect != name or name_key(look.product) not in names):
                    raise InputError(
                        f"{path} is in the pack {domain!r} as {look.defect or 'a good part'!r} of {look.product!r} already; "
                        f"delete that entry of {folder / LIST} first."
                    )
        new: list[Look] = []
        known: list[Path] = []
        stale: list[str] = []
        for number, (path, data, file) in enumerate(contents):
            stem = Path(file).stem
            box = None if boxes is None else boxes[number]
            if replace and stem in held and (name, product.strip(), box) != _said(held[stem]):
                looks.remove(held[stem])
                if held[stem].file != file:
                    stale.append(held[stem].file)
                del held[stem]
            if stem in held:
                known.append(path)
                continue
            write_whole(folder / file, data)
            held[stem] = Look(
                file=file,
                defect=name,
                product=product.strip(),
                box=box,
                source=source,
                added=date.today().isoformat(),
            )
            new.append(held[stem])
        if new:
            _write_list(folder, [*looks, *new])
        for old in stale:  # after the list, which must never name a missing file
            (folder / old).unlink()
        head = folder.parent / "pack.yaml"
        if not (SHIPPED / domain).is_dir() and not head.exists():  # looks alone are no pack that an inspection can use
            named = {"name": domain, "products": [{"name": product.strip()}]}
            write_whole(head, yaml.safe_dump(named, sort_keys=False, allow_unicode=True))
    return Added(new, known)


def _content(path: Path, image: Image.Image) -> tuple[bytes, str]:
    """The file of a look and its ending."""
    from sage_ad.vlm.images import file_of

    if file_of(path) == path:
        return path.read_bytes(), path.suffix.lower()
    if image.info["range"] is not None:
        raise InputError(f"{path} has more than 8 bits; save this page as a file of its own, so that it keeps them.")
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue(), ".png"


def inside(box: tuple[int, int, int, int], size: tuple[int, int]) -> bool:
    """Whether a box holds pixels, and only such of a picture of this width and height."""
    return 0 <= box[0] < box[2] <= size[0] and 0 <= box[1] < box[3] <= size[1]


def _said(look: Look) -> tuple[str | None, str, tuple[int, int, int, int] | None]:
    return look.defect, look.product, look.box


def remove_look(domain: str, file: str) -> Look:
    """Takes a picture out of the user's pack of a domain; returns what it was.

    Raises:
        InputError: the pack does not hold it.
    """
    folder = looks_folder(domain)
    with FileLock(folder / ".lock") if folder.is_dir() else contextlib.nullcontext():
        looks = read_looks(folder)
        gone = next((look for look in looks if look.file == file), None)
        if gone is None:
            raise InputError(f"The pack {domain!r} holds no picture {file!r} (any more); choose another one.")
        _write_list(folder, [look for look in looks if look is not gone])
        (folder / file).unlink()
    return gone


def merge_looks(folder: Path, taken: Iterable[tuple[Look, bytes]]) -> tuple[list[Look], list[str]]:
    """Adds looks of another copy of a pack; a picture that is here already stays as it is.

    Args:
        folder: the pack's `looks` folder; it is made if it is new.
        taken: looks, each with the content of its picture.

    Returns:
        What was new, and one line for each look that was not taken.
    """
    new: list[Look] = []
    refused: list[str] = []
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        looks = read_looks(folder)
        held = {Path(look.file).stem: look for look in looks}
        for look, data in taken:
            stem = content_name(data)
            if not re.fullmatch(rf"[\w-]+/{stem}\.[a-z0-9]+", look.file):
                refused.append(f"{look.file}: is not named by its content")
            elif stem in held:
                here, there = (f"{one.defect or 'a good part'} of {one.product}" for one in (held[stem], look))
                if name_key(here) != name_key(there):
                    refused.append(f"{look.file}: is {here!r} here, {there!r} in the file")
            elif reason := _no_picture(data, Path(look.file).suffix):
                refused.append(f"{look.file}: {reason}")
            else:
                write_whole(folder / look.file, data)
                held[stem] = look
                new.append(look)
        if new:
            _write_list(folder, [*looks, *new])
    return new, refused


def _no_picture(data: bytes, suffix: str) -> str | None:
    """Why a content is no picture that can be inspected, or None."""
    from sage_ad.vlm.images import load_image

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"picture{suffix}"
        path.write_bytes(data)
        try:
            load_image(path)
        except InputError as error:
            return str(error).replace(str(path), "it")
    return None


def _write_list(folder: Path, looks: Sequence[Look]) -> None:
    rows = [look.model_dump(mode="json", exclude_defaults=True) for look in looks]
    write_whole(folder / LIST, yaml.safe_dump(rows, sort_keys=False, allow_unicode=True))
