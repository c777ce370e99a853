"""The llama-index readers for the files that experts have, and a node parser that cuts them into sentences.

A reader turns one file into llama-index documents (a PDF page, a table row, a whole Markdown file ...). Each document
carries in its metadata what a citation needs: `file`, `sha256`, `page`, `entry`, and what the layout already tells:
`products`, `defects`, `kind`, `headings`, `form` ("prose" or "statement"). `SentenceParser` cuts documents into nodes
whose span counts characters of the document's text. A file that cannot be read raises one `InputError`; a bad row or
page of a good file becomes a line in `FactReader.problems`, and the rest is read. What is left out without loss of text
(pictures, ratings) is said in `FactReader.notes`.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import itertools
import json
import re
import struct
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard

from llama_index.core.node_parser import NodeParser
from llama_index.core.readers.base import BaseReader
from llama_index.core.schema import BaseNode, Document, TextNode
from pydantic import Field

from sage_ad.knowledge.ingestion.tables import (
    Columns,
    Row,
    Statement,
    Table,
    find_header,
    read_table,
    recognise_columns,
    table_cells,
    table_lines,
)
from sage_ad.knowledge.store.packs import SHIPPED
from sage_ad.knowledge.text.decoding import decode
from sage_ad.knowledge.text.segmentation import (
    Sentence,
    Titles,
    headings_below,
    on_most_pages,
    split_sentences,
    whole_words,
)
from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    from sage_ad.knowledge.ingestion.pdf import PageText

MAX_BYTES = 256 * 2**20
"""Largest PDF or Office file that is read; more is a mistake (a scan, an archive) more often than knowledge."""

MAX_TEXT_BYTES = 32 * 2**20
"""Largest file of plain text, HTML, CSV or JSON: about fifty books."""

_CONTAINERS = frozenset({".pdf", ".docx", ".xlsx", ".xlsm"})

IMAGE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


class FactReader(BaseReader):
    """Base of the readers: reads the bytes once, hashes them, and gives every document its provenance.

    Attributes:
        endings: file endings (lower case) that the reader is for.
        problems: sentences about text of the last file that could not be read, while the rest was.
        notes: sentences about what was left out or decided without losing text (pictures, ratings, tracked changes).
    """

    endings: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []

    def lazy_load_data(self, file: Path | str, **_: Any) -> Iterable[Document]:
        """Yields the documents of one file.

        Raises:
            InputError: when the file is absent, empty, too large, or not what its ending says.
        """
        path = Path(file)
        self.problems, self.notes = [], []
        content = read_bytes(path)
        base = {"file": str(path.resolve()), "sha256": hashlib.sha256(content).hexdigest(), "form": "prose"}
        found = False
        for text, extra in self.parts(path, content):
            if text.strip():
                found = True
                yield Document(text=text, metadata={**base, **extra})
        if not found and not self.problems:
            raise InputError(f"{path} has no text that could be read; give a file that has some.")

    def parts(self, path: Path, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields (text, metadata) of each part of a file; what a subclass is for."""
        raise TypeError(f"{type(self).__name__} reads nothing; use one of {', '.join(sorted(READERS))}")


class TextReader(FactReader):
    """Plain text and Markdown; UTF-8, UTF-16 with its mark, or Windows-1252."""

    endings = (".txt", ".text", ".md", ".markdown")

    def parts(self, path: Path, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        from sage_ad.knowledge.ingestion.web import page_text

        text = decode(path, content)
        markdown = path.suffix.lower() in {".md", ".markdown"}
        if markdown:  # what converters cannot say in Markdown they leave in HTML
            for passage, what in (
                (_COMMENT, "comment(s)"), (_HIDDEN, "hidden passage(s)"), (_STRUCK, "deleted or struck-through passage(s)")
            ):  # fmt: skip
                text, count = passage.subn(_blank, text)
                if count:
                    self.notes.append(f"{path}: {count} {what} were not read.")
            text = _HTML_TABLE.sub(lambda table: f"\n\n{page_text(table.group().encode())[0]}\n\n", text)
        yield text, {"markdown": markdown, "literal": not markdown}


_STRUCK = re.compile(r"(?<!~)~~(?=[^\s~])[^~\n]*[^\s~]~~(?!~)|<(del|s|strike)\b[^<>\n]*>[^<\n]*</\1>", re.I)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)|^\[[^\[\]\n]*\]:[ \t]*(?:#|<>)[ \t]*[(\"'][^\n]*", re.S | re.M)
_HIDDEN = re.compile(
    r"<(\w{1,20})\b(?=[^<>]*\s(?:hidden\b|aria-hidden=[\"']?true|style=[^<>]*(?:display:\s*none|visibility:\s*hidden)))"
    r"[^<>]*>[^<]*</\1>",
    re.I,
)
_HTML_TABLE = re.compile(r"<table\b[^<>]*>.*?</table>", re.S | re.I)


def _blank(passage: re.Match[str]) -> str:
    """Spaces in place of a passage, so that lines and spans stay what they were."""
    return re.sub(r"[^\n]", " ", passage.group())


class PDFReader(FactReader):
    """PDF with a text layer, one document a page: tables, columns and paragraphs in reading order."""

    endings = (".pdf",)

    def parts(self, path: Path, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        import pdfplumber
        from pdfminer import pdftypes
        from pdfminer.pdfdocument import PDFPasswordIncorrect
        from pdfminer.pdfexceptions import PDFException
        from pdfplumber.utils.exceptions import PdfminerException

        from sage_ad.knowledge.ingestion.pdf import Allowance, read_page, with_titles

        # What damaged files make pdfminer raise, besides its own errors.
        faults = (PDFException, PdfminerException, ValueError, LookupError, TypeError, AttributeError, RecursionError,
                  AssertionError, OSError, struct.error, zlib.error, InputError)  # fmt: skip
        vars(pdftypes)["zlib"] = _BoundedZlib  # pdfminer itself sets no bound
        try:
            book = pdfplumber.open(io.BytesIO(content))
            count = len(book.pages)
        except faults as error:
            if isinstance(error, PDFPasswordIncorrect) or "PDFPasswordIncorrect" in repr(error):
                raise InputError(f"{path} is locked with a password; save a copy without it and add that.") from None
            raise InputError(f"{path} cannot be read as a PDF ({_first_line(error)}); export it again.") from None
        if not count:
            raise InputError(f"{path} cannot be read as a PDF (it has no page); export it again.")
        pages: dict[int, PageText] = {}
        allowance = Allowance(len(content))
        with book:
            for number, page in enumerate(book.pages, start=1):
                try:
                    pages[number] = read_page(page, allowance)
                except faults as error:
                    if allowance.left < 0:
                        rest = f"page {number} of {count}" + (" and those after it" if number < count else "")
                        self.problems.append(
                            f"{path}: {rest} cannot be read ({_first_line(error)}); print it to PDF again."
                        )
                        break
                    self.problems.append(
                        f"{path}, page {number} cannot be read ({_first_line(error)}); the others were."
                    )
                finally:
                    page.close()
        columns: list[str | None] = []
        above: dict[int, str] = {}
        titled = [*with_titles([*pages.values()])]
        typed = sum(any(isinstance(block, tuple) and block[1] for block in blocks) for blocks in titled)
        for number, blocks in zip(pages, titled, strict=True):
            texts: list[tuple[str, int | None]] = []
            for block in blocks:
                if isinstance(block, list):
                    # A table that continues from the page before stands below the same headings.
                    if find_header(block) is None and len(block[0]) == len(columns):
                        block = [columns, *block]
                    header = find_header(block)
                    columns = list(block[header]) if header is not None else []
                    texts.append((table_lines(block), None))
                else:
                    texts.append(block)
            text, titles = joined_paragraphs(texts)
            yield (
                text,
                {"page": number, "literal": True, "titles": titles, "above": above, "typed": typed > len(pages) / 2},
            )
            for start, level in titles.items():
                above = headings_below(above, level, text[start:].split("\n", 1)[0])
        self._say_what_is_missing(path, pages)

    def _say_what_is_missing(self, path: Path, pages: Mapping[int, PageText]) -> None:
        scanned = [number for number, page in pages.items() if page.scanned]
        if not self.problems and not any(page.blocks for page in pages.values()):
            raise InputError(f"{path} has no text layer (a scan?); run text recognition over it and add the result.")
        if scanned:
            self.problems.append(
                f"{path}: {len(scanned)} scanned page(s) were not read (page {_numbers(scanned)}); run text "
                "recognition over the file and add the result."
            )
        if turned := [number for number, page in pages.items() if page.sideways > 2]:
            self.problems.append(f"{path}: text printed sideways was not read (page {_numbers(turned)}).")
        if struck := [number for number, page in pages.items() if page.struck]:
            count = sum(pages[number].struck for number in struck)
            self.notes.append(f"{path}: {count} struck-through character(s) were not read (page {_numbers(struck)}).")
        if unreadable := [number for number, page in pages.items() if page.unreadable]:
            count = sum(pages[number].unreadable for number in unreadable)
            self.problems.append(
                f"{path}: {count} character(s) have no code in the file (page {_numbers(unreadable)}); the sentences "
                "that hold them were left out."
            )
        if dense := [number for number, page in pages.items() if page.crossings]:
            self.notes.append(f"{path}: a dense grid was read as text and not as a table (page {_numbers(dense)}).")
        if pictures := sum(page.pictures for page in pages.values() if not page.scanned):
            self.notes.append(f"{path}: {pictures} picture(s) were not read.")


class _BoundedZlib:
    """zlib as pdfminer uses it; a stream that unpacks to more than a book's text is refused."""

    error, decompressobj = zlib.error, zlib.decompressobj

    @staticmethod
    def decompress(data: bytes) -> bytes:
        stream = zlib.decompressobj()
        unpacked = stream.decompress(data, MAX_TEXT_BYTES)
        if stream.unconsumed_tail:
            raise InputError(
                f"A stream in the PDF unpacks to more than {MAX_TEXT_BYTES >> 20} MB; print it to PDF again."
            )
        if not stream.eof:
            raise zlib.error("incomplete or truncated stream")
        return unpacked


class HTMLReader(FactReader):
    """Web pages without their scripts, navigation, forms and hidden parts, as one Markdown-like text."""

    endings = (".html", ".htm", ".xhtml")

    def parts(self, path: Path, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        from sage_ad.knowledge.ingestion.web import page_text

        if b"\x00" in content[:4096]:
            try:
                content = decode(path, content).encode()
            except InputError:
                raise InputError(
                    f"{path} is no web page (it holds binary data); save the page as HTML again."
                ) from None
        text, notes = page_text(content)
        self.notes += [f"{path}: {note}" for note in notes]
        yield text, {"markdown": True, "literal": True}


class DocxReader(FactReader):
    """Word documents as Word shows them: tracked changes accepted; text boxes, content controls, tables, footnotes."""

    endings = (".docx",)

    def parts(self, path: Path, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        from sage_ad.knowledge.ingestion.office import word_page
        from sage_ad.knowledge.ingestion.web import page_text

        page, problems, notes = word_page(path, content)
        text, more = page_text(page.encode())
        self.problems += [f"{path}: {problem}" for problem in problems]
        self.notes += [f"{path}: {note}" for note in (*notes, *more)]
        yield text, {"markdown": True, "literal": True}


class TableReader(FactReader):
    """CSV and TSV: one statement a cell that says something; the column headings tell what (see `knowledge.ingestion.tables`)."""

    endings = (".csv", ".tsv")

    def parts(self, path: Path, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        text = decode(path, content)
        separator = re.match(r'"?sep=(.)"?\n', text)  # Excel's own first line
        if separator:
            text = text[separator.end() :]
        try:
            delimiter = separator.group(1) if separator else _delimiter(path, text)
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
        except csv.Error as error:
            raise InputError(f"{path} cannot be read as a table ({error}); save it as CSV again.") from None
        yield from self.table(path, rows)

    def table(
        self, path: Path, rows: Sequence[Row], *, place: str = "", records: bool = False
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Statements of a table.

        Args:
            path: its file.
            rows: its rows of cells.
            place: where in the file it stands ("sheet Limits"); empty for the whole file.
            records: whether its first row are the keys of records, which repeat nothing from the record above.

        Raises:
            InputError: when it says nothing; the message names its headings.
        """
        table = read_table(rows, fill=not records, header=0 if records else None)
        where = f"{path}, {place}" if place else str(path)
        if table is None or not (table.statements or table.problems):
            row = rows[table.header] if table else max(rows[:30], key=lambda row: sum(map(bool, row)), default=())
            headings = ", ".join(repr(str(cell)[:40]) for cell in row if cell)
            raise InputError(
                f"{where} has no column that says something (its headings seem to be {headings or 'missing'}): name one "
                "'text' (a sentence a row), or name columns after what they tell: product, defect, appearance, cause, "
                "consequence, normal-variation, inspection."
            )
        self.problems += [f"{where}, {problem}" for problem in table.problems]
        self.notes += [f"{where}: {note}" for note in table.notes]
        images = self._images(where, path, rows, table)
        for statement in table.statements:
            entry = ", ".join(part for part in (place, f"row {statement.row - table.header}") if part)
            extra: dict[str, Any] = {}
            if images is not None:
                if statement.row not in images:
                    continue
                entry, extra = images[statement.row], {"image": str((path.parent / images[statement.row]).resolve())}
            yield statement.text, _statement(statement, table.columns, entry) | extra

    def _images(self, where: str, path: Path, rows: Sequence[Row], table: Table) -> dict[int, str] | None:
        """Image file by row, where a column names one; rows whose image cannot be read become problems."""
        if table.columns.file is None:
            return None
        images = {}
        for number, row in enumerate(rows[table.header + 1 :], start=table.header + 1):
            if not any(row):
                continue
            name = str(row[table.columns.file]).strip() if table.columns.file < len(row) else ""
            if problem := self.image_problem(path, name):
                self.problems.append(f"{where}, row {number - table.header}: {problem}")
            else:
                images[number] = name
        return images

    def image_problem(self, path: Path, name: str) -> str | None:
        """What is wrong with the image that a caption row names, in one sentence; None when it can be read."""
        if not name:
            return "the row names no image file, so its caption was left out."
        if Path(name).suffix.lower() not in IMAGE_ENDINGS:
            return None  # a column "file" of a table that is about other things
        from sage_ad.vlm.images import load_image

        try:
            load_image(path.parent / name)
        except InputError as error:
            return f"its caption was left out: {error}"
        return None


def _delimiter(path: Path, text: str) -> str:
    """The separator under which most headings are known; else the one that cuts most lines into equally many cells."""
    head = text[:65_536].rpartition("\n")[0] or text[:65_536]
    best, highest = "\t" if path.suffix.lower() == ".tsv" else ",", (0, 1)
    for delimiter in (best, *",;\t|"):
        rows = [row for row in csv.reader(io.StringIO(head, newline=""), delimiter=delimiter) if any(row)]
        header = find_header(rows)
        known = recognise_columns(rows[header]).known if header is not None else 0
        widths = Counter(len(row) for row in rows if len(row) > 1)
        if (score := (known, max(widths.values(), default=0))) > highest:
            best, highest = delimiter, score
    return best


def _statement(statement: Statement, columns: Columns, entry: str) -> dict[str, Any]:
    several = len(columns.questions) + (columns.text is not None) > 1 or not statement.plain
    return {
        "form": "statement",
        "judged": not statement.plain,
        "entry": f"{entry}, {statement.column}" if several and statement.column else entry,
        "kind": statement.kind,
        "products": list(statement.products),
        "defects": list(statement.defects),
    }


class ExcelReader(TableReader):
    """Excel workbooks, sheet by sheet, as tables; a cell as Excel shows it, merged cells in each of their rows."""

    endings = (".xlsx", ".xlsm")

    def parts(self, path: Path, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        from sage_ad.knowledge.ingestion.office import sheets

        found = False
        for name, rows, problems, notes in sheets(path, content):
            self.problems += [f"{path}, sheet {name!r}: {problem}" for problem in problems]
            self.notes += [f"{path}, sheet {name!r}: {note}" for note in notes]
            if not any(cell for row in rows for cell in row):
                continue
            try:
                yield from self.table(path, rows, place=f"sheet {name!r}")
                found = True
            except InputError as error:
                self.problems.append(str(error))
        if not found and self.problems:
            raise InputError(self.problems[-1])


class JSONReader(TableReader):
    """JSON and JSON lines: MMAD domain knowledge, lists of records (as a table), or any nesting of texts."""

    endings = (".json", ".jsonl")

    def parts(self, path: Path, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        text = decode(path, content)
        value = self._lines(path, text) if path.suffix.lower() == ".jsonl" else self._whole(path, text)
        if isinstance(value, Mapping) and isinstance(value.get("facts"), list):
            value = value["facts"]
        if is_domain_knowledge(value):
            yield from _domain_knowledge(value)
        elif isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
            yield from self.records(path, value)
        else:
            yield from _nested(value, ())

    def records(self, path: Path, records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Statements of records; their keys are the headings of a table."""
        keys = list(dict.fromkeys(str(key) for record in records for key in record))
        rows = [keys, *([_json_cell(record.get(key)) for key in keys] for record in records)]
        nested = [key for key in keys if any(isinstance(record.get(key), Mapping) for record in records)]
        if nested:
            self.notes.append(f"{path}: nested values were not read (key {', '.join(map(repr, nested))}).")
        yield from self.table(path, rows, records=True)

    def _whole(self, path: Path, text: str) -> Any:
        try:
            return json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{path} is no valid JSON ({_first_line(error)}); mend it and add it again.") from None

    def _lines(self, path: Path, text: str) -> list[Any]:
        rows = []
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except (json.JSONDecodeError, RecursionError) as error:
                self.problems.append(f"{path}, line {number} is no valid JSON ({_first_line(error)}); it was left out.")
        if not rows:
            raise InputError(f"{path} has no line of valid JSON; write one JSON object a line.")
        return rows


def _json_cell(value: Any) -> Any:
    return "" if value is None or isinstance(value, (bool, Mapping)) else value


def is_domain_knowledge(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether a JSON value has MMAD's shape: data set -> category -> defect type -> text."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(group, Mapping) and group for group in value.values())
        and all(isinstance(entries, Mapping) and entries for group in value.values() for entries in group.values())
        and all(isinstance(t, str) for g in value.values() for entries in g.values() for t in entries.values())
    )


def _domain_knowledge(value: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for dataset, categories in value.items():
        for category, entries in categories.items():
            for defect, text in entries.items():
                normal = defect.lower() in {"good", "normal", "ok"}
                yield (
                    text,
                    {
                        "entry": f"{dataset}/{category}/{defect}",
                        "products": [category.replace("_", " ")],
                        "defects": [] if normal else [defect.replace("_", " ")],
                        "kind": "normal-variation" if normal else None,
                    },
                )


def _nested(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Texts of an unknown JSON value; the keys above a text are its headings."""
    if isinstance(value, str) and value.strip():
        headings = [part.replace("_", " ") for part in path if not part.isdigit()]
        yield value, {"entry": "/".join(path) or None, "headings": headings}
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _nested(inner, (*path, str(key)))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _nested(inner, (*path, str(number)))


READERS: dict[str, type[FactReader]] = {
    ending: reader for reader in (TextReader, PDFReader, DocxReader, HTMLReader, TableReader, ExcelReader, JSONReader)
    for ending in reader.endings
}  # fmt: skip
"""Reader by file ending; add your own `FactReader` here to read another format."""


def reader_for(path: Path) -> FactReader:
    """The reader for a file, by its ending.

    Raises:
        InputError: when no reader knows the ending; the message lists what can be read.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        known = " ".join(sorted(READERS))
        raise InputError(f"{path} cannot be read: ending {path.suffix or '(none)'!r} is not one of {known}.")
    return reader()


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        InputError: when it is absent, a folder, unreadable, empty or larger than `MAX_BYTES` (`MAX_TEXT_BYTES`).
    """
    most = MAX_BYTES if path.suffix.lower() in _CONTAINERS else MAX_TEXT_BYTES
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder, where a file is needed.")
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is a pipe or device, where a file is needed.")
        if (size := path.stat().st_size) > most:
            raise InputError(f"{path} has {size >> 20} MB, more than {most >> 20}; split it and add the parts.")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); check the path and its rights.") from None
    if not content.strip():
        raise InputError(f"{path} is empty; give a file that has text.")
    return content


def joined_paragraphs(blocks: Sequence[tuple[str, int | None]]) -> tuple[str, dict[int, int]]:
    """Blocks of a page as paragraphs, and the levels of its titles by the character at which they start.

    A sentence that continues in the next column is kept whole.

    Args:
        blocks: text, and its level if it is a title, else None.
    """
    text, titles, after_title = "", {}, False
    for block, level in blocks:
        alone = level is not None or after_title
        continues = not alone and ((text[-1:].isalnum() and block[:1].islower()) or text.endswith("-"))
        text += "" if not text else "\n" if continues else "\n\n"
        if level is not None:
            titles[len(text)] = level
        text, after_title = text + block, level is not None
    return text, titles


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:20])) + (" ..." if len(numbers) > 20 else "")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:160] or type(error).__name__


class SentenceParser(NodeParser):
    """llama-index node parser: one node a sentence (or table cell, or statement), with its span in the document.

    A node's metadata is the document's, with `headings` (titles above the sentence), `block` (shared by those of
    one paragraph) and `layout` ("paragraph", "bullet" or "statement"; one from a column whose heading is not known is also
    `judged`). `problems` and `notes` say what of tables was not read. Lines that stand on most pages of a file
    (running heads, page numbers) give no nodes.
    """

    include_prev_next_rel: bool = False
    problems: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "SentenceParser"

    def _parse_nodes(self, nodes: Sequence[BaseNode], show_progress: bool = False, **_: Any) -> list[BaseNode]:
        pages = [node for node in nodes if node.metadata.get("page")]
        titles = {line for node in pages for line in _titles(node)}
        repeated = running_lines([node.get_content() for node in pages]) - {_running_form(line) for line in titles}
        if repeated:
            lines = ", ".join(map(repr, sorted(repeated)[:5])) + (" ..." if len(repeated) > 5 else "")
            self.notes.append(
                f"{pages[0].metadata['file']}: the running head or foot of the pages was not read: {lines}."
            )
        found: list[BaseNode] = []
        texts = [node.get_content() for node in nodes]
        broken = any(re.search(r"[-\u2010]\s*\n", text) for text in texts)
        words = _trade_words().union(*map(whole_words, texts)) if broken else frozenset()
        for document in nodes:
            text = document.get_content()
            if document.metadata.get("form") == "statement":  # one row or cell of a table file
                found.append(_node(document, " ".join(text.split()), 0, len(text), {"layout": "statement"}))
                continue
            text = _blank_lines(text, repeated)
            found.extend(_sentence_nodes(document, text, words, self.problems, self.notes))
        return found

    def _postprocess_parsed_nodes(self, nodes: list[BaseNode], parent_doc_map: dict[str, Document]) -> list[BaseNode]:
        return nodes  # the spans are exact already; llama-index would search each text again, and miss cleaned ones


@functools.cache
def _trade_words() -> frozenset[str]:
    """The words of the shipped packs."""
    return frozenset().union(*(whole_words(path.read_text(encoding="utf-8")) for path in SHIPPED.glob("*/*/*.yaml")))


def _sentence_nodes(
    document: BaseNode, text: str, words: Collection[str], problems: list[str], notes: list[str]
) -> Iterator[BaseNode]:
    meta = document.metadata
    above = tuple(meta.get("headings") or ())
    literal = bool(meta.get("literal"))
    rows: list[Sentence] = []
    titles = Titles(meta["titles"], meta["above"], meta["typed"]) if "titles" in meta else None
    for sentence in split_sentences(
        text, markdown=bool(meta.get("markdown")), literal=literal, titles=titles, words=words
    ):
        if rows and (sentence.kind != "table" or re.search(r"\n\s*\n", text[rows[-1].end : sentence.start])):
            yield from _table_nodes(document, rows, above, problems, notes)
            rows = []
        if sentence.kind == "table":
            rows.append(sentence)
            continue
        headings = {"headings": [*above, *sentence.headings], "block": sentence.block, "layout": sentence.kind}
        yield _node(document, sentence.text, sentence.start, sentence.end, headings)
    if rows:
        yield from _table_nodes(document, rows, above, problems, notes)


def _table_nodes(
    document: BaseNode, rows: Sequence[Sentence], above: Sequence[str], problems: list[str], notes: list[str]
) -> Iterator[BaseNode]:
    meta = document.metadata
    headings = [*above, *rows[0].headings]
    cells = [table_cells(row.text, literal=bool(meta.get("literal"))) for row in rows]
    table = read_table(cells, about=headings[-1] if headings else "")
    page = f", page {meta['page']}" if meta.get("page") else ""
    where = f"{meta['file']}{page}, table below {headings[-1]!r}" if headings else f"{meta['file']}{page}, table"
    if table is None:
        notes.append(f"{where}: it has no row below its headings and was not read.")
        return
    problems += [f"{where}, {problem}" for problem in table.problems]
    notes += [f"{where}: {note}" for note in table.notes]
    for statement in table.statements:
        row = rows[statement.row]
        about = {"kind": statement.kind, "products": statement.products, "defects": statement.defects}
        extra = {
            "headings": headings,
            "block": row.block,
            "layout": "statement",
            "judged": not statement.plain,
            **about,
        }
        yield _node(document, statement.text, row.start, row.end, extra)


def _node(document: BaseNode, plain: str, start: int, end: int, extra: Mapping[str, Any]) -> TextNode:
    """A node without llama-index's own relations, whose hashes would be computed of the whole document each time."""
    kept = {key: value for key, value in document.metadata.items() if key not in ("titles", "above", "typed")}
    return TextNode(text=plain, start_char_idx=start, end_char_idx=end, metadata={**kept, **extra})


def _titles(page: BaseNode) -> Iterator[str]:
    """The lines of a page whose type says that they are titles."""
    for start in page.metadata.get("titles", ()):
        yield page.get_content()[start:].split("\n", 1)[0]


def running_lines(pages: Sequence[str]) -> set[str]:
    """Lines at the top or bottom of at least three pages and of half of them, with page numbers made alike ("page #").

    A whole sentence is no running line, nor are lines that differ in another number ("Limit: 0.5 mm").
    """
    numbers: dict[str, list[tuple[int, ...]]] = {}
    for page in pages:
        lines = [line for line in page.split("\n") if line.strip()]
        for form, line in {_running_form(line): line for line in (*lines[:3], *lines[-3:])}.items():
            if not _is_sentence(line):
                numbers.setdefault(form, []).append(tuple(int(digits[-18:]) for digits in re.findall(r"\d+", line)))
    most = on_most_pages(len(pages))
    return {
        form for form, rows in numbers.items() if len(rows) >= most and all(map(_counts_up, zip(*rows, strict=True)))
    }


def _is_sentence(line: str) -> bool:
    return len(line.split()) > 3 and line.rstrip(" \"')]’”").endswith((".", "!", "?"))


def _counts_up(numbers: Sequence[int]) -> bool:
    """Whether numbers of successive pages are those of the pages, or always the same."""
    return len(set(numbers)) == 1 or all(before < after for before, after in itertools.pairwise(numbers))


def _running_form(line: str) -> str:
    return re.sub(r"\d+", "#", " ".join(line.split()))


def _blank_lines(text: str, running: set[str]) -> str:
    """Overwrites running lines with spaces, so that the spans of everything else stay what they were."""
    lines = text.split("\n")
    written = [number for number, line in enumerate(lines) if line.strip()]
    for number in written[:3] + written[3:][-3:]:
        if _running_form(lines[number]) in running and not _is_sentence(lines[number]):
            lines[number] = " " * len(lines[number])
    return "\n".join(lines)
