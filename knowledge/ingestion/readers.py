"""Knows: llama-index readers for the files that experts have, and a node parser that cuts them into sentences.

A reader turns one file into llama-index documents (a PDF page, a table row, a whole Markdown file ...). Each document
carries in its metadata what a citation needs: `file`, `sha256`, `page`, `entry`, and what the layout already tells:
`products`, `defects`, `kind`, `headings`, `form` ("prose" or "statement"). `SentenceParser` cuts documents into nodes
whose span counts characters of the document's text. A file that cannot be read raises one `InputError`; a bad row or
page of a good file becomes a line in `FactReader.problems`, and the rest is read.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeGuard

from llama_index.core.node_parser import NodeParser
from llama_index.core.readers.base import BaseReader
from llama_index.core.schema import BaseNode, Document, TextNode

from sage_ad.knowledge.ingestion.tables import Columns, Statement, recognise_columns, row_statements
from sage_ad.knowledge.text.segmentation import split_sentences
from sage_ad.vlm.errors import InputError

MAX_BYTES = 256 * 2**20
"""Largest file that is read; more is a mistake (a scan, an archive) more often than knowledge."""

IMAGE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


class FactReader(BaseReader):
    """Base of the readers: reads the bytes once, hashes them, and gives every document its provenance.

    Attributes:
        endings: file endings (lower case) that the reader is for.
        problems: sentences about parts of the last file that could not be read, while the rest was.
    """

    endings: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.problems: list[str] = []

    def lazy_load_data(self, file: Path | str, **_: Any) -> Iterable[Document]:
        """Yields the documents of one file.

        Raises:
            InputError: when the file is absent, empty, too large, or not what its ending says.
        """
        path = Path(file)
        self.problems = []
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
        yield decode(path, content), {"markdown": path.suffix.lower() in {".md", ".markdown"}}


class PDFReader(FactReader):
    """PDF with a text layer, one document a page."""

    endings = (".pdf",)

    def parts(self, path: Path, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError

        try:
            book = PdfReader(io.BytesIO(content))
            if book.is_encrypted and not book.decrypt(""):
                raise InputError(f"{path} is locked with a password; save a copy without it and add that.")
            count = len(book.pages)
        except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} cannot be read as a PDF ({_first_line(error)}); export it again.") from None
        empty = 0
        for number in range(1, count + 1):
            try:
                text = book.pages[number - 1].extract_text()
            except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                self.problems.append(f"{path}, page {number} cannot be read ({_first_line(error)}); the others were.")
                continue
            empty += not text.strip()
            yield text, {"page": number}
        if empty == count:
            raise InputError(f"{path} has no text layer (a scan?); run text recognition over it and add the result.")


class DocxReader(FactReader):
    """Word documents: paragraphs, lists and tables in their order, as one Markdown-like text."""

    endings = (".docx",)

    def parts(self, path: Path, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        import zipfile

        import docx
        from docx.opc.exceptions import OpcError

        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if sum(info.file_size for info in archive.infolist()) > 2 * MAX_BYTES:
                    raise InputError(
                        f"{path} unpacks to more than {2 * MAX_BYTES >> 20} MB; split it and add the parts."
                    )
            document = docx.Document(io.BytesIO(content))
        except (zipfile.BadZipFile, OpcError, KeyError, ValueError, SyntaxError) as error:
            raise InputError(f"{path} is no Word document ({_first_line(error)}); save it as .docx again.") from None
        yield "\n\n".join(_docx_blocks(document)), {"markdown": True}


def _docx_blocks(document: Any) -> Iterator[str]:
    from docx.table import Table

    for item in document.iter_inner_content():
        if isinstance(item, Table):
            yield "\n".join(_table_line([cell.text for cell in row.cells]) for row in item.rows)
        elif text := " ".join(item.text.split()):
            style = (item.style.name if item.style is not None else "") or ""
            if style.startswith(("Heading", "Title")):
                yield "#" * (int(style[-1]) if style[-1].isdigit() else 1) + " " + text
            else:
                yield ("- " if style.startswith("List") else "") + text


class HTMLReader(FactReader):
    """Web pages without their scripts, navigation, forms and hidden parts, as one Markdown-like text."""

    endings = (".html", ".htm", ".xhtml")

    def parts(self, path: Path, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        from bs4 import BeautifulSoup
        from bs4.element import Comment

        if b"\x00" in content[:4096] and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise InputError(f"{path} is no web page (it holds binary data); save the page as HTML again.")
        soup = BeautifulSoup(content, "html.parser")
        for comment in soup.find_all(string=lambda string: isinstance(string, Comment)):
            comment.extract()
        for tag in soup(_NOT_PROSE):
            tag.decompose()
        for tag in soup.find_all(_is_hidden):
            tag.decompose()
        root = soup.find("main") or soup.find("article") or soup.body or soup
        yield "\n\n".join(_html_blocks(root)), {"markdown": True}


_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_HTML_BLOCKS = (*_HEADINGS, "p", "li", "dt", "dd", "blockquote", "figcaption", "caption", "td", "th", "div", "section")
_NOT_PROSE = ["script", "style", "noscript", "template", "nav", "header", "footer", "aside", "form", "button", "select"]
_NOT_PROSE += ["svg", "iframe"]


def _is_hidden(tag: Any) -> bool:
    if getattr(tag, "attrs", None) is None:
        return False  # inside a hidden part that is already gone
    style = str(tag.get("style", "")).replace(" ", "").lower()
    return (
        tag.has_attr("hidden")
        or tag.get("aria-hidden") == "true"
        or any(mark in style for mark in ("display:none", "visibility:hidden", "font-size:0", "opacity:0;"))
        or style.endswith("opacity:0")
    )


def _html_blocks(root: Any) -> Iterator[str]:
    """Every piece of text once, under the innermost block that holds it, in the order in which the blocks begin."""
    blocks: dict[int, tuple[Any, list[str]]] = {}
    for string in root.find_all(string=True):
        block = string.find_parent(lambda tag: tag is root or tag.name in _HTML_BLOCKS)
        row = string.find_parent("tr")
        owner = row if row is not None else block if block is not None else root
        blocks.setdefault(id(owner), (owner, []))[1].append(str(string))
    for tag, strings in blocks.values():
        if tag.name == "tr":
            yield _table_line([cell.get_text(" ") for cell in tag.find_all(["td", "th"])])
        elif text := " ".join("".join(strings).split()):
            level = int(tag.name[1]) if tag.name in _HEADINGS else 0
            yield "#" * level + " " * bool(level) + ("- " if tag.name == "li" else "") + text


class TableReader(FactReader):
    """CSV and TSV: one statement a cell that says something; the column headings tell what (see `knowledge.ingestion.tables`)."""

    endings = (".csv", ".tsv")

    def parts(self, path: Path, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        text = decode(path, content)
        try:
            dialect: Any = csv.Sniffer().sniff(text[:20_000], delimiters=",;\t|")
        except csv.Error:
            dialect = csv.excel_tab if path.suffix.lower() == ".tsv" else csv.excel
        try:
            rows = list(csv.DictReader(io.StringIO(text, newline=""), dialect=dialect, restkey="", restval=""))
        except csv.Error as error:
            raise InputError(f"{path} cannot be read as a table ({error}); save it as CSV again.") from None
        yield from self.rows(path, rows)

    def rows(self, path: Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Statements of a table whose rows are mappings from heading to cell."""
        columns = recognise_columns(list(dict.fromkeys(str(name) for row in rows[:50] for name in row if name)))
        if not columns.usable:
            raise InputError(
                f"{path} has no column that says something: name one 'text' (a sentence a row), or name columns after "
                "what they tell: product, defect, appearance, cause, consequence, normal-variation, inspection."
            )
        for number, row in enumerate(rows, start=1):
            entry = f"row {number}"
            extra: dict[str, Any] = {}
            if columns.file:
                name = str(row.get(columns.file) or "").strip()
                if problem := self.image_problem(path, name):
                    self.problems.append(f"{path}, {entry}: {problem}")
                    continue
                entry, extra = name, {"image": str((path.parent / name).resolve())}
            for statement in row_statements(row, columns):
                yield statement.text, _statement(statement, columns, entry) | extra

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


def _statement(statement: Statement, columns: Columns, entry: str) -> dict[str, Any]:
    several = len(columns.questions) + bool(columns.text) > 1
    return {
        "form": "statement",
        "entry": f"{entry}, {statement.column}" if several else entry,
        "kind": statement.kind,
        "products": list(statement.products),
        "defects": list(statement.defects),
    }


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
            yield from self.rows(path, value)
        else:
            yield from _nested(value, ())

    def _whole(self, path: Path, text: str) -> Any:
        try:
            return json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{path} is no valid JSON ({_first_line(error)}); mend it and add it again.") from None

    def _lines(self, path: Path, text: str) -> list[Any]:
        rows = []
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except (json.JSONDecodeError, RecursionError) as error:
                self.problems.append(f"{path}, line {number} is no valid JSON ({_first_line(error)}); it was left out.")
        if not rows:
            raise InputError(f"{path} has no line of valid JSON; write one JSON object a line.")
        return rows


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
    ending: reader for reader in (TextReader, PDFReader, DocxReader, HTMLReader, TableReader, JSONReader)
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
        InputError: when it is absent, a folder, unreadable, empty or larger than `MAX_BYTES`.
    """
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder, where a file is needed.")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise InputError(f"{path} has {size >> 20} MB, more than {MAX_BYTES >> 20}; split it and add the parts.")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); check the path and its rights.") from None
    if not content.strip():
        raise InputError(f"{path} is empty; give a file that has text.")
    return content


def decode(path: Path, content: bytes) -> str:
    """Bytes of a text file as text with "\\n" at line ends.

    Raises:
        InputError: when the bytes are no text.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\x00" in content:
        raise InputError(f"{path} is no text file (it holds binary data); give text, or name it by its real format.")
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            return content.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError:
            continue
    raise InputError(f"{path} is neither UTF-8 nor Windows-1252 text; save it as UTF-8.")


def _table_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:160]


class SentenceParser(NodeParser):
    """llama-index node parser: one node a sentence (or table cell, or statement), with its span in the document.

    A node's metadata is the document's, with `headings` (titles above the sentence), `block` (shared by those of
    one paragraph) and `layout` ("paragraph", "bullet" or "statement"). Lines that stand on most pages of a file
    (running heads, page numbers) give no nodes.
    """

    include_prev_next_rel: bool = False

    @classmethod
    def class_name(cls) -> str:
        return "SentenceParser"

    def _parse_nodes(self, nodes: Sequence[BaseNode], show_progress: bool = False, **_: Any) -> list[BaseNode]:
        repeated = running_lines([node.get_content() for node in nodes if node.metadata.get("page")])
        found: list[BaseNode] = []
        for document in nodes:
            text = document.get_content()
            if document.metadata.get("form") == "statement":
                found.append(_node(document, " ".join(text.split()), 0, len(text), {"layout": "statement"}))
                continue
            for line in repeated & {_running_form(line) for line in text.split("\n")}:
                text = _blank_lines(text, line)
            found.extend(_sentence_nodes(document, text))
        return found

    def _postprocess_parsed_nodes(self, nodes: list[BaseNode], parent_doc_map: dict[str, Document]) -> list[BaseNode]:
        return nodes  # the spans are exact already; llama-index would search each text again, and miss cleaned ones


def _sentence_nodes(document: BaseNode, text: str) -> Iterator[BaseNode]:
    above = tuple(document.metadata.get("headings") or ())
    header: list[str] | None = None
    table_end = -1
    for number, sentence in enumerate(split_sentences(text, markdown=bool(document.metadata.get("markdown")))):
        headings = {"headings": [*above, *sentence.headings], "block": sentence.block, "number": number}
        if sentence.kind != "table":
            extra = headings | {"layout": sentence.kind}
            yield _node(document, sentence.text, sentence.start, sentence.end, extra)
            continue
        cells = [cell.strip() for cell in sentence.text.strip("| ").split(" | ")]
        if header is None or text[table_end : sentence.start].count("\n") > 2:
            header, table_end = cells, sentence.end
            continue
        table_end = sentence.end
        columns = recognise_columns(header)
        for statement in row_statements(dict(zip(header, cells, strict=False)), columns):
            about = {"kind": statement.kind, "products": statement.products, "defects": statement.defects}
            extra = headings | about | {"layout": "statement"}
            yield _node(document, statement.text, sentence.start, sentence.end, extra)


def _node(document: BaseNode, plain: str, start: int, end: int, extra: Mapping[str, Any]) -> TextNode:
    """A node without llama-index's own relations, whose hashes would be computed of the whole document each time."""
    metadata = {**document.metadata, **extra}
    return TextNode(text=plain, start_char_idx=start, end_char_idx=end, metadata=metadata)


def running_lines(pages: Sequence[str]) -> set[str]:
    """Lines at the top or bottom of at least three pages and of half of them, with digits made alike ("page #")."""
    counts: dict[str, int] = {}
    for page in pages:
        lines = [line for line in page.split("\n") if line.strip()]
        for line in {_running_form(line) for line in (*lines[:3], *lines[-3:])}:
            counts[line] = counts.get(line, 0) + 1
    return {line for line, count in counts.items() if count >= max(3, (len(pages) + 1) // 2)}


def _running_form(line: str) -> str:
    return re.sub(r"\d+", "#", " ".join(line.split()))


def _blank_lines(text: str, running: str) -> str:
    """Overwrites a running line with spaces, so that the spans of everything else stay what they were."""
    return "\n".join(" " * len(line) if _running_form(line) == running else line for line in text.split("\n"))
