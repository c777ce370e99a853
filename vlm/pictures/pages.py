"""Files that hold several pictures: how one of them is named, and which of them are parts of their own.

A page is named by the file with `#page=N` behind it, N from 1: `stack.tif#page=2`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sage_ad.vlm.errors import InputError

_PAGE = re.compile(r"#page=(\d{1,9})$")
_SAME_SHAPE = 0.03
"""A smaller page whose proportions differ by no more than this is a reduced copy of the largest one."""


@dataclass(frozen=True)
class Page:
    """One picture of a file, as its header describes it.

    Attributes:
        size: width and height in pixels, as stored.
        deep: whether its values have more than 8 bits and need a range of brightness.
        reduced: whether the file says that it is a smaller copy, or a mask, of another page.
    """

    size: tuple[int, int]
    deep: bool = False
    reduced: bool = False


def split_page(path: str | os.PathLike[str]) -> tuple[Path, int | None]:
    """The file and the page (from 1) of an address; None where it names no page."""
    text = os.fspath(path)
    found = _PAGE.search(text)
    if found is None or os.path.exists(text):
        return Path(path), None
    return Path(text[: found.start()]), int(found.group(1))


def file_of(path: str | os.PathLike[str]) -> Path:
    """The file that holds the picture of this address."""
    return split_page(path)[0]


def page_address(path: Path, number: int) -> Path:
    """The address of a page, from 1."""
    return path.with_name(f"{path.name}#page={number}")


def parts_of(pages: Sequence[Page]) -> list[int]:
    """Positions of the pages that are pictures of their own; the others are reduced copies of the largest one."""
    if len(pages) == 1:
        return [0]
    whole = [number for number, page in enumerate(pages) if not page.reduced] or list(range(len(pages)))
    largest = max(whole, key=lambda number: pages[number].size[0] * pages[number].size[1])
    return [number for number in whole if number == largest or not _is_copy(pages[number], pages[largest])]


def chosen_page(path: Path, pages: Sequence[Page], wanted: int | None) -> tuple[int, list[str]]:
    """The position of the page to read, and what must be said about the choice.

    Raises:
        InputError: no such page, or several pages are pictures of their own and none was named.
    """
    if wanted is not None:
        if not 1 <= wanted <= len(pages):
            raise InputError(f"{path} has no page {wanted}; it has {len(pages)}.")
        return wanted - 1, []
    parts = parts_of(pages)
    if len(parts) > 1:
        raise InputError(
            f"{path} holds {len(parts)} pictures; name one of them ({page_address(Path(path.name), parts[0] + 1)}), save it "
            "as a file of its own, or inspect each with sage-batch on its folder."
        )
    if len(pages) == 1:
        return 0, []
    width, height = pages[parts[0]].size
    others = len(pages) - 1
    return parts[0], [
        f"{path.name}: page {parts[0] + 1} of {len(pages)} was taken, the largest with {width} x {height} pixels; "
        f"the other {'page is' if others == 1 else f'{others} pages are'} a smaller copy or a mask."
    ]


def _is_copy(page: Page, largest: Page) -> bool:
    (width, height), (full_width, full_height) = page.size, largest.size
    if min(*page.size, *largest.size) < 1 or 2 * width > full_width or 2 * height > full_height:
        return False
    # One pixel of rounding changes the proportions of a small copy by more than the tolerance.
    tolerance = _SAME_SHAPE + 1 / min(page.size)
    return abs((width * full_height) / (height * full_width) - 1) <= tolerance
