"""Reads a page of a PDF: its tables, ruled or not, and its text in reading order, also in columns.

pdfplumber finds ruled tables; a table without rules is found by a line of known headings. pdfminer's layout analysis
orders the rest. Lines in larger or bold type are titles. What cannot be read (scanned pages, sideways text, characters
without a code) is counted.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pdfminer.layout import (
    LAParams,
    LTChar,
    LTCurve,
    LTFigure,
    LTImage,
    LTLayoutContainer,
    LTTextBox,
    LTTextGroup,
    LTTextGroupLRTB,
    LTTextLine,
)
from pdfminer.pdfinterp import PDFPageInterpreter, PDFResourceManager
from pdfminer.pdftypes import stream_value
from pdfplumber.page import PDFPageAggregatorWithMarkedContent
from pdfplumber.table import (
    Table,
    TableFinder,
    TableSettings,
    cells_to_tables,
    edges_to_intersections,
    intersections_to_cells,
)
from pdfplumber.utils.exceptions import PdfminerException

from sage_ad.knowledge.ingestion.tables import heading_kind, recognise_columns
from sage_ad.knowledge.text.grammar import is_sentence
from sage_ad.knowledge.text.segmentation import LIGATURES, is_no_title, on_most_pages
from sage_ad.vlm.errors import InputError

_SCAN_AREA = 0.5  # share of a page that pictures cover, with hardly any text, from which it is taken for a scan
_HARDLY_ANY = 200  # characters
_THIN = 2.0  # height in points of a line through text, at most
_THROUGH = (0.3, 0.65)  # where it crosses a character, from its lowest point, as a share of its height

_MOST_DRAWN = 200_000  # characters, lines and pictures of one page: about 200 MB of memory
_MOST_CROSSINGS = 10_000  # of ruled lines on a page; pdfplumber compares each with each
_MOST_FLOWING = 300  # blocks of text that are ordered by how they flow; pdfminer compares each with each
_MOST_NEIGHBOURS = 20_000_000  # pairs of lines on one spot; a page of 3,000 lines has 200,000
_FREE_BYTES = 2 * 2**20  # drawing commands that any file may run ...
_BYTES_A_BYTE = 20  # ... and those that it may run for each of its own bytes, which are packed about four to one
_FORM_COST = 16  # what starting a form costs beside its commands, in bytes of them

_LARGER = 1.08  # times the size of the running text, from which type is that of a title
_LONGEST_TITLE = 120  # characters
_MOST_LEVELS = 5  # of titles
_BOLD = re.compile(r"bold|black|heavy|demi", re.I)

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in points."""


@dataclass(frozen=True)
class Line:
    """A line of a paragraph: its text, the size of its type in points (to half a point), and whether all of it is bold."""

    text: str
    size: float
    bold: bool


@dataclass
class PageText:
    """What a page says.

    Attributes:
        blocks: paragraphs as their lines, and tables as lists of rows, in reading order.
        scanned: whether it is a picture of text.
        sideways: number of characters of turned text, which were not read.
        unreadable: number of characters that have no code.
        struck: number of struck-through characters, which were not read.
        pictures: number of pictures.
        crossings: number of crossings of its ruled lines, where these are too many for a table.
    """

    blocks: list[tuple[Line, ...] | list[list[str | None]]] = field(default_factory=list)
    scanned: bool = False
    sideways: int = 0
    unreadable: int = 0
    struck: int = 0
    pictures: int = 0
    crossings: int = 0


class Allowance(PDFResourceManager):
    """The drawing commands that a file may still run: forms that call forms repeat a few lines a billion times.

    Attributes:
        left: bytes of commands; below 0 once they are spent.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.left = _FREE_BYTES + _BYTES_A_BYTE * size


class _Interpreter(PDFPageInterpreter):
    """pdfminer's interpreter, within the allowance of the file."""

    rsrcmgr: Allowance

    def execute(self, streams: Sequence[object]) -> None:
        self.rsrcmgr.left -= _FORM_COST + len(self.fontmap) + len(self.xobjmap)
        for stream in streams:
            self.rsrcmgr.left -= len(stream_value(stream).get_data())
            if self.rsrcmgr.left < 0:
                raise InputError("its drawings repeat one another more often than those of a document do")
        super().execute(streams)


class _Collector(PDFPageAggregatorWithMarkedContent):
    """pdfplumber's collector of what is drawn, up to what fits into memory."""

    drawn = 0

    def tag_cur_item(self) -> None:
        self.drawn += 1
        if self.drawn > _MOST_DRAWN:
            raise InputError(f"it draws more than {_MOST_DRAWN:,} characters, lines and pictures")
        super().tag_cur_item()


def read_page(page: Any, allowance: Allowance) -> PageText:
    """Reads a `pdfplumber` page.

    Raises:
        PdfminerException: when it is damaged, draws too much, or spends what is left of the allowance.
    """
    collector = _Collector(allowance, pageno=page.page_number, laparams=None)
    try:
        _Interpreter(allowance, collector).process_page(page.page_obj)
    except Exception as error:  # pdfminer fails on damaged files in every way
        raise PdfminerException(error) from error
    page._layout = collector.get_result()  # where pdfplumber looks for it
    items = list(_items(page.layout))
    printed = [item for item in items if isinstance(item, LTChar)]
    chars = _printed_once(printed)
    pictures = [item for item in items if isinstance(item, LTImage)]
    found = PageText(pictures=len(pictures))
    found.sideways = sum(not char.upright and bool(char.get_text().strip()) for char in chars)
    found.unreadable = sum("(cid:" in char.get_text() or "\ufffd" in char.get_text() for char in chars if char.upright)
    written = sum(bool(char.get_text().strip()) for char in chars)
    covered = sum(picture.width * picture.height for picture in pictures)
    found.scanned = bool(pictures) and (
        written == 0 or (written < _HARDLY_ANY and covered > _SCAN_AREA * page.width * page.height)
    )
    for char in _struck(chars, items):
        found.struck += bool(char.get_text().strip())
        char._text = " "  # without them the rest of the line would fall apart
    # pdfplumber describes every character at length; only a page with rules needs that.
    ruled = sum(isinstance(item, LTCurve) for item in items) > 2
    finder = _Finder(page.dedupe_chars() if len(chars) < len(printed) else page) if ruled else None
    tables = [*_ruled_tables(finder)] if finder else []
    found.crossings = finder.crossings if finder and not finder.tables else 0
    boxes = _text_boxes(page, chars, [box for box, _ in tables])
    if open_tables := [*_open_tables(page, boxes)]:
        tables += open_tables
        boxes = _text_boxes(page, chars, [box for box, _ in tables])
    dots = [(item.x1, (item.y0 + item.y1) / 2) for item in items if isinstance(item, LTCurve) and _is_dot(item)]
    pieces: list[tuple[Box, Any]] = [(_box(page, box), lines) for box in boxes if (lines := _typed_lines(box, dots))]
    for place, rows in sorted(tables, key=lambda table: table[0][1]):
        after = next(
            (n for n, (box, _) in enumerate(pieces) if box[1] >= place[1] and box[0] < place[2] and place[0] < box[2]),
            len(pieces),
        )
        pieces.insert(after, (place, rows))
    found.blocks = [content for _, content in pieces]
    return found


def _printed_once(chars: Sequence[Any]) -> list[Any]:
    """Characters without their copies a fraction of their width away, which programs print to make letters bold."""
    kept, seen = [], set()
    for char in chars:
        step = max(0.2 * min(char.width, char.height), 0.01)
        text, across, down = char.get_text(), char.x0 // step, char.y0 // step
        if not any((text, across + right, down + up) in seen for right in (-1, 0, 1) for up in (-1, 0, 1)):
            kept.append(char)
        seen.add((text, across, down))
    return kept


def _struck(chars: Sequence[Any], items: Sequence[Any]) -> list[Any]:
    """Characters with a thin line through their middle: in a PDF that is drawn and no property of the text."""
    # By height, since a drawing may have thousands of lines beside thousands of characters.
    lines = sorted(
        ((line.y0 + line.y1) / 2, line.x0, line.x1)
        for line in items
        if isinstance(line, LTCurve) and line.height <= min(_THIN, line.width)
    )
    low, high = _THROUGH

    def is_struck(char: Any) -> bool:
        first = bisect_right(lines, (char.y0 + low * char.height, math.inf))
        last = bisect_left(lines, (char.y0 + high * char.height,))
        return any(left <= (char.x0 + char.x1) / 2 <= right for _, left, right in lines[first:last])

    return [char for char in chars if is_struck(char)]


def _items(layout: Any) -> Iterator[Any]:
    """Everything on a page, figures opened."""
    for item in layout:
        if isinstance(item, LTFigure):
            yield from _items(item)
        else:
            yield item


class _Layout(LTLayoutContainer):
    """pdfminer's layout analysis; the labels of a drawing, which do not flow, are read from the top."""

    def group_textlines(self, laparams: LAParams, lines: Iterable[LTTextLine]) -> Iterator[LTTextBox]:
        lines = list(lines)
        cells = Counter((line.x0 // 50, line.y0 // 50) for line in lines)  # in which pdfminer seeks a line's neighbours
        if sum(count**2 for count in cells.values()) > _MOST_NEIGHBOURS:
            raise InputError("its text is printed over itself")
        return super().group_textlines(laparams, lines)

    def group_textboxes(self, laparams: LAParams, boxes: Sequence[LTTextBox]) -> list[LTTextGroup]:
        return [LTTextGroupLRTB(boxes)] if len(boxes) > _MOST_FLOWING else super().group_textboxes(laparams, boxes)


def _text_boxes(page: Any, chars: Sequence[Any], outside: Sequence[Box]) -> list[Any]:
    """pdfminer's paragraphs, in reading order, of the upright text that stands in no table."""
    container = _Layout(page.layout.bbox)
    container.extend([char for char in chars if char.upright and not _inside(_box(page, char), outside)])
    container.analyze(LAParams())
    return [item for item in container if isinstance(item, LTTextBox)]


def _is_dot(curve: Any) -> bool:
    """Whether a drawing may be the disc or square before an item of a list."""
    return 1 < curve.width < 8 and 1 < curve.height < 8 and abs(curve.width - curve.height) < 1


def _typed_lines(box: Any, dots: Sequence[tuple[float, float]]) -> tuple[Line, ...]:
    """The lines of a paragraph that say something, with their type; a drawn dot before one (right edge, middle) is a bullet."""
    lines = []
    for line in box:
        if text := _plain(line.get_text()):
            chars = [char for char in line if isinstance(char, LTChar) and char.get_text().strip()]
            sizes = Counter(round(2 * char.size) / 2 for char in chars)
            bold = all(_BOLD.search(char.fontname) for char in chars)
            high = line.height
            if any(0 < line.x0 - right < 2 * high and abs(y - (line.y0 + line.y1) / 2) < high / 2 for right, y in dots):
                text = f"• {text}"
            lines.append(Line(text, max(sizes, key=lambda size: (sizes[size], size)), bold))
    return tuple(lines)


def with_titles(pages: Sequence[PageText]) -> Iterator[list[tuple[str, int | None] | list[list[str | None]]]]:
    """The blocks of each page, in which every title stands by itself with its level, 1 the highest; other text has None.

    A title is set in larger type than the running text, or in bold type at the start of a paragraph; one of two lines is
    joined. The level follows the type, and the depth of its number ("2.1") where titles of one type have one. What stands on
    many pages (a running head, a mark across the page) is no title, unless it names a kind of fact ("Causes") or is set in
    the type of those that do.
    """
    paragraphs = [[block for block in page.blocks if isinstance(block, tuple)] for page in pages]
    written: Counter[tuple[float, bool]] = Counter()
    for line in (line for page in paragraphs for block in page for line in block):
        written[line.size, line.bold] += len(line.text)
    size, bold = max(written, key=lambda kind: written[kind]) if written else (0.0, False)

    def is_title(line: Line) -> bool:
        larger = line.size >= _LARGER * size or (line.bold and not bold and line.size >= size)
        return larger and any(map(str.isalpha, line.text))

    def ends_as_title(text: str, points: float) -> bool:
        """A question may be a title, and a few words in larger type in spite of a full stop; a bold sentence is none."""
        if points < _LARGER * size and is_sentence(text):
            return False
        return text[-1] not in ".,;!" or (points >= _LARGER * size and text[-1] in ".!" and len(text.split()) <= 6)

    cut = [{number: _cut(block, is_title, ends_as_title) for number, block in enumerate(page)} for page in paragraphs]
    often = Counter(
        title.text for page in cut for title in {line for pieces in page.values() for line, own in pieces if own}
    )
    most = on_most_pages(len(pages))
    titles = [line for page in cut for pieces in page.values() for line, own in pieces if own]
    # Where each defect has a page, "Causes" stands on all of them.
    parts = {(line.size, line.bold) for line in titles if heading_kind(line.text)}
    kinds = {_title_kind(line) for line in titles}
    level = {kind: min(rank, _MOST_LEVELS) for rank, kind in enumerate(sorted(kinds), start=1)}

    def stays(line: Line) -> bool:
        return often[line.text] < most or (line.size, line.bold) in parts

    for page, pieces in zip(pages, cut, strict=True):
        number = 0
        blocks: list[tuple[str, int | None] | list[list[str | None]]] = []
        for block in page.blocks:
            if not isinstance(block, tuple):
                blocks.append(block)
                continue
            for line, own in pieces[number]:
                blocks.append((line.text, level[_title_kind(line)] if own and stays(line) else None))
            number += 1
        yield blocks


def _title_kind(line: Line) -> tuple[float, bool, int]:
    """What titles of one level share; smaller for a higher level."""
    number = re.match(r"\d{1,2}(?:\.\d{1,2}){0,3}(?=\.?\s)", line.text)
    return -line.size, not line.bold, number.group().count(".") if number else 0


def _cut(
    block: Sequence[Line], is_title: Callable[[Line], bool], ends_as_title: Callable[[str, float], bool]
) -> list[tuple[Line, bool]]:
    """A paragraph cut into its titles (True) and the text between them, each as one `Line` of one or more lines."""
    pieces: list[tuple[Line, bool]] = []
    for line in block:
        last, was_title = pieces[-1] if pieces else (None, False)
        title = is_title(line)
        if last and not was_title and last.size == line.size and last.text[-1] not in ".!?:":
            title = False  # bold words of a sentence that fill a line
        if last and title == was_title and (not title or (last.size, last.bold) == (line.size, line.bold)):
            joined = last.text + (" " if title else "\n") + line.text
            pieces[-1] = (Line(joined, last.size, last.bold), title)
        else:
            pieces.append((line, title))
    return [
        (
            line,
            title
            and ends_as_title(line.text, line.size)
            and len(line.text) <= _LONGEST_TITLE
            and not is_no_title(line.text),
        )
        for line, title in pieces
    ]


def _box(page: Any, item: Any) -> Box:
    return item.x0, page.height - item.y1, item.x1, page.height - item.y0


def _inside(box: Box, boxes: Sequence[Box]) -> bool:
    across, down = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return any(left <= across <= right and top <= down <= bottom for left, top, right, bottom in boxes)


def _plain(text: str) -> str:
    """Text without ligatures, and with one mark for every character that has no code."""
    return re.sub(r"\(cid:\d+\)", "\ufffd", text).translate(LIGATURES).strip()


# ---------------------------------------------------------------------------------------------------------------------
# Tables


class _Finder(TableFinder):
    """pdfplumber's finder of ruled tables, which takes graph paper for none."""

    def __init__(self, page: Any) -> None:
        self.page, self.settings = page, TableSettings.resolve({})
        self.edges = self.get_edges()
        across, down = self.settings.intersection_x_tolerance, self.settings.intersection_y_tolerance
        self.intersections = edges_to_intersections(self.edges, across, down)
        dense = len(self.intersections) > _MOST_CROSSINGS
        self.crossings = len(self.intersections) if dense else 0
        self.cells = [] if dense else intersections_to_cells(self.intersections)
        self.tables = [Table(page, cells) for cells in cells_to_tables(self.cells)]


def _ruled_tables(finder: _Finder) -> Iterator[tuple[Box, Any]]:
    for table in finder.tables:
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


def _lines(page: Any, boxes: Sequence[Any]) -> list[_Line]:
    """The lines of a page from the top; pdfminer cuts them where a gap is wide."""
    lines: list[_Line] = []
    chunks = [(_box(page, chunk), chunk.get_text().strip()) for box in boxes for chunk in box]
    for (left, top, right, bottom), text in sorted(chunks, key=lambda chunk: (round(chunk[0][3]), chunk[0][0])):
        if not lines or abs(bottom - lines[-1].bottom) > 0.3 * (bottom - top):
            lines.append(_Line(top, bottom, []))
        if text:
            lines[-1].chunks.append(_Chunk(left, right, text))
    return [_Line(line.top, line.bottom, sorted(line.chunks, key=lambda c: c.left)) for line in lines if line.chunks]


def _open_tables(page: Any, boxes: Sequence[Any]) -> Iterator[tuple[Box, Any]]:
    """Tables without rules: below a line of at least two known headings, lines whose words keep to the columns."""
    lines = _lines(page, boxes)
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
