"""Reads a web page, or what mammoth makes of a Word document, as one Markdown-like text.

Headings become "#", list items "-", tables lines of "| cell | cell |" with merged cells in their places. Scripts,
navigation, hidden parts and deleted passages are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from sage_ad.knowledge.ingestion.tables import table_lines

_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_BLOCKS = (
    *_HEADINGS,
    "p",
    "li",
    "dt",
    "dd",
    "blockquote",
    "figcaption",
    "caption",
    "td",
    "th",
    "div",
    "section",
    "pre",
)
_TABLE = "sage-table"
_NOT_PROSE = ["script", "style", "template", "svg", "iframe"]
_AROUND = ["nav", "header", "footer", "noscript", "button", "select", "textarea"]
_HIDDEN = re.compile(r"display:none|visibility:hidden|(?:font-size|opacity):0(?:\.0*)?(?:px|pt|r?em|%)?(?:;|!|$)")
_RAISED = str.maketrans("0123456789+-−()ni", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁽⁾ⁿⁱ")
_WIDEST = 200  # columns that one cell may cover; more is a mistake or an attack


def page_text(content: bytes) -> tuple[str, list[str]]:
    """The text of a page, and sentences on what was left out of it."""
    from bs4 import BeautifulSoup
    from bs4.element import Comment

    soup = BeautifulSoup(content, "html.parser")
    comments = [comment.extract() for comment in soup.find_all(string=lambda string: isinstance(string, Comment))]
    notes = []
    pictures, frames = len(soup.find_all("img")), len(soup.find_all(["iframe", "object", "embed"]))
    hidden = [*_outermost(soup.find_all(_is_hidden))]
    heads = {id(head) for whole in soup(["main", "article"]) for head in whole("header")}  # they hold its title
    around = [*_outermost([tag for tag in soup(_AROUND) if id(tag) not in heads])]
    unread = [sum(bool(tag.get_text().strip()) for tag in tags) for tags in (hidden, around)]
    for tag in (*soup(_NOT_PROSE), *hidden, *around):
        tag.decompose()
    asides = [tag for tag in soup("aside") if len(tag.get_text().split()) > 3]
    deleted = soup.find_all(_is_struck)
    for tag in (*soup("aside"), *deleted):
        tag.decompose()
    for count, what in (
        (pictures, "picture(s)"), (frames, "embedded page(s)"), (len(asides), "aside(s)"),
        (len(deleted), "deleted or struck-through passage(s)"), (unread[0], "hidden passage(s)"),
        (sum(any(map(str.isalnum, comment)) for comment in comments), "comment(s)"),
        (unread[1], "part(s) around the text (navigation, head, foot, forms)"),
    ):  # fmt: skip
        if count:
            notes.append(f"{count} {what} were not read.")
    _set_raised(soup)
    for tag in soup("br"):
        tag.replace_with("\n")
    whole = [*soup("main")] or [*soup("article")]
    root = whole[0] if len(whole) == 1 else soup.body or soup
    for table in [table for table in root("table") if not table.find("table")]:
        _replace_table(soup, table)
    return "\n\n".join(_texts(root)), notes


def _outermost(tags: Iterable[Any]) -> Iterator[Any]:
    """Those of a page, in its order, that stand in none of the others."""
    inside: set[int] = set()
    for tag in tags:
        if id(tag) not in inside:
            inside.update(map(id, tag.find_all(True)))
            yield tag


def _is_hidden(tag: Any) -> bool:
    style = str(tag.get("style", "")).replace(" ", "").lower()
    return tag.has_attr("hidden") or tag.get("aria-hidden") == "true" or bool(_HIDDEN.search(style))


def _is_struck(tag: Any) -> bool:
    return tag.name in ("del", "s", "strike") or "line-through" in str(tag.get("style", "")).lower()


def _set_raised(soup: Any) -> None:
    """Exponents stay exponents ("mm²", "10⁻³"); marks of footnotes go."""
    for tag in soup("sup"):
        text = tag.get_text().strip()
        link = tag.find("a", href=re.compile("^#"))
        if link is not None or re.fullmatch(r"\[\w{1,4}\]", text):
            tag.decompose()
        else:
            raised = re.fullmatch(r"[0-9+\-−()ni]+", text)
            tag.replace_with(text.translate(_RAISED) if raised else text)
    for tag in soup.find_all("a", href=re.compile("^#")):
        if tag.get_text().strip() in {"↑", "^"}:
            tag.decompose()


def _texts(root: Any) -> Iterator[str]:
    """Every piece of text once, under the innermost block that holds it, in the order in which the blocks begin."""
    blocks: dict[int, tuple[Any, list[str]]] = {}
    for string in root.find_all(string=True):
        block = string.find_parent(lambda tag: tag is root or tag.name in _BLOCKS or tag.name == _TABLE)
        owner = block if block is not None else root
        blocks.setdefault(id(owner), (owner, []))[1].append(str(string))
    for tag, strings in blocks.values():
        if tag.name == _TABLE:
            yield "".join(strings)
        elif text := " ".join("".join(strings).split()):
            level = int(tag.name[1]) if tag.name in _HEADINGS else 0
            yield "#" * level + " " * bool(level) + ("- " if tag.name == "li" else "") + text


def _replace_table(soup: Any, table: Any) -> None:
    """Puts the lines of a table in its place; one that only lays out a page is left to be read as blocks."""
    if caption := table.find("caption"):
        table.insert_before(caption.extract())
    grid = _grid(table)
    laid_out = table.find(_HEADINGS) or max((len(cell or "") for row in grid for cell in row), default=0) > 800
    if laid_out or max(map(len, grid), default=0) < 2:
        return
    lines = soup.new_tag(_TABLE)
    lines.string = table_lines(grid)
    table.replace_with(lines)


def _grid(table: Any) -> list[list[str | None]]:
    """Rows of cells: a cell over several rows stands in each of them, one over several columns is followed by None."""
    grid: list[list[str | None]] = []
    below: dict[int, tuple[str | None, int]] = {}
    for line in table("tr"):
        row: list[str | None] = []

        def take_from_above(row: list[str | None] = row) -> None:
            while len(row) in below:
                text, left = below.pop(len(row))
                if left > 1:
                    below[len(row)] = (text, left - 1)
                row.append(text)

        for cell in line.find_all(["td", "th"], recursive=False):
            take_from_above()
            for inner in cell(["p", "li", "div"]):
                inner.append("; " if inner.name == "li" and inner.find_next_sibling("li") else "\n")
            text = re.sub(r"\s*([.,;:!?])\s*; ", r"\1 ", " ".join(cell.get_text().split()))
            for column in range(min(_span(cell, "colspan"), _WIDEST)):
                content = None if column else text
                if (rows := _span(cell, "rowspan")) > 1:
                    below[len(row)] = (content, rows - 1)
                row.append(content)
        take_from_above()
        grid.append(row)
    return grid


def _span(cell: Any, name: str) -> int:
    value = str(cell.get(name, "1")).strip()
    return max(1, int(value)) if value.isdecimal() and len(value) < 6 else 1
