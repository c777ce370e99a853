"""Reads a page of a PDF: its tables, ruled or not, and its text in reading order, also in columns.

pdfplumber finds ruled tables; a table without rules is found by a line of known headings. pdfminer's layout analysis
orders the rest. What cannot be read (scanned pages, sideways text, characters without a code) is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sage_ad.knowledge.ingestion.tables import recognise_columns

_LIGATURES = {0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl", 0xFB05: "st", 0xFB06: "st"}
_SCAN_AREA = 0.5  # share of a page that pictures cover, with hardly any text, from which it is taken for a scan
_HARDLY_ANY = 200  # characters

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in points."""


@dataclass
class PageText:
    """What a page says.

    Attributes:
        blocks: paragraphs, and tables as lists of rows, in reading order.
        scanned: whether it is a picture of text.
        sideways: number of characters of turned text, which were not read.
        unreadable: number of characters that have no code.
        pictures: number of pictures.
    """

    blocks: list[str | list[list[str | None]]] = field(default_factory=list)
    scanned: bool = False
    sideways: int = 0
    unreadable: int = 0
    pictures: int = 0


def read_page(page: Any) -> PageText:
    """Reads a `pdfplumber` page."""
    found = PageText(pictures=len(page.images))
    found.sideways = sum(not char["upright"] and bool(char["text"].strip()) for char in page.chars)
    upright = [char for char in page.chars if char["upright"]]
    found.unreadable = sum("(cid:" in char["text"] or "\ufffd" in char["text"] for char in upright)
    written = sum(bool(char["text"].strip()) for char in page.chars)
    covered = sum((image["x1"] - image["x0"]) * (image["bottom"] - image["top"]) for image in page.images)
    found.scanned = bool(page.images) and (
        written == 0 or (written < _HARDLY_ANY and covered > _SCAN_AREA * page.width * page.height)
    )
    tables = [*_ruled_tables(page)]
    tables += _open_tables(page, [box for box, _ in tables])
    pieces = list(_paragraphs(page, [box for box, _ in tables]))
    for box, rows in sorted(tables, key=lambda table: table[0][1]):
        place = next(
            (
                n
                for n, (other, _) in enumerate(pieces)
                if other[1] >= box[1] and other[0] < box[2] and box[0] < other[2]
            ),
            len(pieces),
        )
        pieces.insert(place, (box, rows))
    found.blocks = [content for _, content in pieces]
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def _ruled_tables(page: Any) -> Iterator[tuple[Box, Any]]:
    if not (page.rects or page.lines or page.curves):
        return
    for table in page.find_tables():
        texts = table.extract()
        if len(texts) < 2 or len(texts[0]) < 2:
            continue
        lefts = sorted({cell[0] for row in table.rows for cell in row.cells if cell})
        middles = [(left + right) / 2 for left, right in zip(lefts, [*lefts[1:], table.bbox[2]], strict=True)]
        rows: list[list[str | None]] = []
        for number, (row, line) in enumerate(zip(table.rows, texts, strict=True)):
            cells: list[str | None] = []
            for column, text in enumerate(line):
                if text is None and number and column < len(middles):
                    # A cell above that reaches down to here covers this place; else the one to the left does.
                    middle = (row.bbox[1] + row.bbox[3]) / 2
                    above = any(
                        cell and cell[0] <= middles[column] <= cell[2] and cell[1] <= middle <= cell[3]
                        for earlier in table.rows[:number]
                        for cell in earlier.cells
                    )
                    text = rows[-1][column] if above else None
                cells.append(None if text is None else _plain(text))
            rows.append(cells)
        yield table.bbox, rows


@dataclass
class _Chunk:
    """Words of one line without a wide gap between them."""

    left: float
    right: float
    text: str


@dataclass
class _Line:
    top: float
    bottom: float
    chunks: list[_Chunk]


def _lines(page: Any, outside: Sequence[Box]) -> list[_Line]:
    words = [word for word in page.extract_words() if word["upright"] and not _inside(word, outside)]
    lines: list[_Line] = []
    for word in sorted(words, key=lambda word: (round(word["bottom"]), word["x0"])):
        height = word["bottom"] - word["top"]
        if not lines or abs(word["bottom"] - lines[-1].bottom) > 0.3 * height:
            lines.append(_Line(word["top"], word["bottom"], []))
        chunks = lines[-1].chunks
        if chunks and word["x0"] - chunks[-1].right < 0.9 * height:
            chunks[-1].text += " " + word["text"]
            chunks[-1].right = word["x1"]
        else:
            chunks.append(_Chunk(word["x0"], word["x1"], word["text"]))
    return lines


def _open_tables(page: Any, outside: Sequence[Box]) -> Iterator[tuple[Box, Any]]:
    """Tables without rules: below a line of at least two known headings, lines whose words keep to the columns."""
    lines = _lines(page, outside)
    number = 0
    while number < len(lines):
        head = lines[number]
        columns = recognise_columns([chunk.text for chunk in head.chunks])
        if len(head.chunks) > 1 and columns.known > 1:
            body = _body(head, lines[number + 1 :])
            if body:
                rows = [[chunk.text for chunk in head.chunks], *_rows(head, body)]
                last = body[-1]
                right = max(chunk.right for line in (head, *body) for chunk in line.chunks)
                left = min(line.chunks[0].left for line in (head, *body))
                yield (left, head.top, right, last.bottom), [[_plain(cell) for cell in row] for row in rows]
                number += len(body)
        number += 1


def _column(head: _Line, chunk: _Chunk) -> int | None:
    """The column in which a chunk stands; None when it reaches over into the next one."""
    starts = [heading.left for heading in head.chunks]
    column = max((n for n, start in enumerate(starts) if start - 3 <= chunk.left), default=0)
    crosses = column + 1 < len(starts) and chunk.right > starts[column + 1] - 3
    return None if crosses else column


def _body(head: _Line, lines: Sequence[_Line]) -> list[_Line]:
    body: list[_Line] = []
    pitch = 0.0
    for line in lines:
        gap = line.top - (body[-1] if body else head).top
        columns = [_column(head, chunk) for chunk in line.chunks]
        far = gap > (1.6 * pitch if pitch else 4 * (head.bottom - head.top))
        if None in columns or len(set(columns)) < len(columns) or far or (len(columns) == 1 and not body):
            break
        pitch = max(pitch, gap)
        body.append(line)
    return body


def _rows(head: _Line, body: Sequence[_Line]) -> list[list[str]]:
    rows: list[list[str]] = []
    before = head
    for line in body:
        cells = [""] * len(head.chunks)
        for chunk in line.chunks:
            cells[_column(head, chunk) or 0] = chunk.text
        tight = line.top - before.top <= 1.45 * (line.bottom - line.top)
        wrapped = not cells[0] or cells[0][0].islower()
        if rows and tight and wrapped:
            rows[-1] = [" ".join(part for part in pair if part) for pair in zip(rows[-1], cells, strict=True)]
        else:
            rows.append(cells)
        before = line
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# Text


def _paragraphs(page: Any, outside: Sequence[Box]) -> Iterator[tuple[Box, str]]:
    from pdfminer.layout import LAParams, LTChar, LTLayoutContainer, LTTextBox

    def characters(item: Any) -> Iterator[Any]:
        for inner in item:
            if isinstance(inner, LTChar):
                if inner.upright and not _inside(_box(page, inner), outside):
                    yield inner
            elif hasattr(inner, "__iter__"):
                yield from characters(inner)

    container = LTLayoutContainer(page.layout.bbox)
    container.extend(list(characters(page.layout)))
    container.analyze(LAParams(boxes_flow=0.5))
    for item in container:
        if isinstance(item, LTTextBox) and (text := _plain(item.get_text())):
            box = _box(page, item)
            yield (box["x0"], box["top"], box["x1"], box["bottom"]), text


def _box(page: Any, item: Any) -> dict[str, float]:
    return {"x0": item.x0, "x1": item.x1, "top": page.height - item.y1, "bottom": page.height - item.y0}


def _inside(item: Any, boxes: Sequence[Box]) -> bool:
    across, down = (item["x0"] + item["x1"]) / 2, (item["top"] + item["bottom"]) / 2
    return any(left <= across <= right and top <= down <= bottom for left, top, right, bottom in boxes)


def _plain(text: str) -> str:
    """Text without ligatures, and with one mark for every character that has no code."""
    return re.sub(r"\(cid:\d+\)", "\ufffd", text).translate(_LIGATURES).strip()
