"""Opens Word and Excel files, after what could harm has been refused, and says what of them is not read.

mammoth reads Word documents as Word shows them: insertions and moved text accepted, deletions gone. The few things
that it passes over in silence are put within its reach or counted here first.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    from openpyxl.cell import Cell

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_STYLES = "\n".join(
    ["p[style-name='Title'] => h1:fresh", "p[style-name='Subtitle'] => h2:fresh"]
    # Chapters stand below the title, which may name the product.
    + [f"p[style-name='{name} {n}'] => h{n + 1}:fresh" for n in range(1, 6) for name in ("Heading", "heading")]
)
# Parts of a formula that a line of text cannot show: fractions, exponents, roots, sums, matrices.
_STACKED = ("f", "sSup", "sSub", "sSubSup", "sPre", "rad", "nary", "m", "eqArr", "limLow", "limUpp")
_MOST_CELLS = 2_000_000
_MOST_UNPACKED = 512 * 2**20
_MOST_TAGS = 5 * _MOST_CELLS


def _package(path: Path, content: bytes, kind: str, main: str) -> dict[str, bytes]:
    """The XML parts of an Office file by name.

    Raises:
        InputError: when it is none, unpacks to too much, or holds a document type (which such files never have).
    """
    parts = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(info.file_size for info in archive.infolist()) > _MOST_UNPACKED:
                raise InputError(f"{path} unpacks to more than {_MOST_UNPACKED >> 20} MB; split it and add the parts.")
            for info in archive.infolist():
                if info.filename.endswith((".xml", ".rels", ".vml")):
                    parts[info.filename] = archive.read(info)
                else:
                    parts[info.filename] = b""
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no {kind} ({error or type(error).__name__}); save it again.") from None
    if main not in parts:
        raise InputError(f"{path} is no {kind} (it has no {main}); save it again.")
    if any(re.search(rb"<!(DOCTYPE|ENTITY)", data.replace(b"\x00", b"")[:100_000]) for data in parts.values()):
        raise InputError(f"{path} holds XML with a document type, as no {kind} does; save it again.")
    if sum(data.count(b"<") for data in parts.values()) > _MOST_TAGS:
        raise InputError(f"{path} holds more than {_MOST_TAGS} XML tags; split it and add the parts.")
    return parts


# ---------------------------------------------------------------------------------------------------------------------
# Word


def word_page(path: Path, content: bytes) -> tuple[str, list[str], list[str]]:
    """A Word document as HTML, with sentences on text that is lost and on what else was left out.

    Raises:
        InputError: when it is no Word document.
    """
    import mammoth

    parts = _package(path, content, "Word document", "word/document.xml")
    problems: list[str] = []
    notes: list[str] = []
    try:
        changed = {
            name: _within_reach(data, problems, notes)
            for name, data in parts.items()
            if re.fullmatch(r"word/(?:document|footnotes|endnotes)\.xml", name)
        }
        result = mammoth.convert_to_html(
            _repacked(content, changed),
            style_map=_STYLES,
            convert_image=mammoth.images.img_element(lambda image: {"src": ""}),
            include_embedded_style_map=False,
            external_file_access=False,
        )
        beside = {
            what: sum(_words(parts[name]) for name in parts if re.fullmatch(pattern, name))
            for pattern, what in (
                (r"word/(?:header|footer)\d*\.xml", "header(s) and footer(s)"),
                (r"word/comments\.xml", "comment(s)"),
            )
        }
    except Exception as error:  # mammoth raises whatever a damaged part makes it meet
        reason = (str(error).splitlines() or [""])[0][:160] or type(error).__name__
        raise InputError(f"{path} is no Word document ({reason}); save it as .docx again.") from None
    passed = sorted(
        {m.message for m in result.messages if re.search(r"ignored|not (?:be )?(?:found|support)", m.message)}
    )
    problems += [f"part of it was not read ({message.rstrip('.')})." for message in passed]
    notes += [f"{what} with {words} word(s) were not read." for what, words in beside.items() if words]
    drawn = sum("/diagrams/data" in name or "/charts/chart" in name for name in parts)
    if drawn:
        problems.append(f"{drawn} chart(s) or diagram(s) were not read.")
    return result.value, problems, notes


def _repacked(content: bytes, changed: dict[str, bytes]) -> io.BytesIO:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, changed.get(info.filename) or old.read(info))
    out.seek(0)
    return out


def _words(data: bytes) -> int:
    return sum(len("".join(p.itertext()).split()) for p in ElementTree.fromstring(data).iter(f"{_W}p"))


def _within_reach(data: bytes, problems: list[str], notes: list[str]) -> bytes:
    """A part of a document with text boxes, formulas and hidden text in forms that mammoth reads as Word shows them."""
    root = ElementTree.fromstring(data)
    changes = sum(1 for name in ("ins", "del", "moveFrom", "moveTo") for _ in root.iter(_W + name))
    if changes:
        notes.append(f"{changes} tracked change(s) were taken as accepted.")
    for alternatives in root.iter(f"{_MC}AlternateContent"):
        if alternatives.find(f"{_MC}Fallback") is None and (choice := alternatives.find(f"{_MC}Choice")) is not None:
            alternatives.tag, alternatives[:] = f"{_W}smartTag", list(choice)
        else:
            for choice in alternatives.findall(f"{_MC}Choice"):
                alternatives.remove(choice)  # the fallback says the same
    for mark in root.iter(f"{_W}dstrike"):
        mark.tag = f"{_W}strike"  # twice struck through is struck through
    for drawing in root.iter(f"{_W}drawing"):
        if boxes := list(drawing.iter(f"{_W}txbxContent")):
            drawing.tag, drawing[:] = f"{_W}pict", boxes
    hidden = 0
    for run in root.iter(f"{_W}r"):
        vanish = run.find(f"{_W}rPr/{_W}vanish")
        if vanish is not None and vanish.get(f"{_W}val", "true") not in {"0", "false"}:
            hidden += bool("".join(run.itertext()).strip())
            run.clear()
    if hidden:
        notes.append(f"{hidden} hidden passage(s) were not read.")
    lost = 0
    for formula in [*root.iter(f"{_M}oMath")]:
        text = "".join(inner.text or "" for inner in formula.iter(f"{_M}t"))
        if any(formula.find(f".//{_M}{name}") is not None for name in _STACKED):
            lost, text = lost + 1, "\ufffd"
        formula.clear()
        formula.tag = f"{_W}r"
        ElementTree.SubElement(formula, f"{_W}t").text = text
    for paragraph in root.iter(f"{_M}oMathPara"):
        paragraph.tag = f"{_W}smartTag"
    if lost:
        problems.append(f"{lost} formula(s) were not read; the sentences around them were left out.")
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


# ---------------------------------------------------------------------------------------------------------------------
# Excel


def sheets(path: Path, content: bytes) -> Iterator[tuple[str, list[list[str | None]], list[str], list[str]]]:
    """Each sheet of a workbook: its name, its rows as Excel shows them, sentences on what is lost and on what is left out.

    Raises:
        InputError: when it is no workbook.
    """
    import openpyxl
    from openpyxl.utils import range_boundaries

    parts = _package(path, content, "Excel workbook", "xl/workbook.xml")
    merged = 0  # openpyxl makes every cell of a merged area before anything can be asked of it
    for area in re.findall(rb"<(?:\w+:)?mergeCell\s[^>]*\bref=[\"'](\w+:\w+)", b"".join(parts.values())):
        left, top, right, bottom = (int(edge or 1) for edge in range_boundaries(area.decode()))
        merged += (right - left + 1) * (bottom - top + 1)
    if merged > _MOST_CELLS:
        raise InputError(f"{path} merges more than {_MOST_CELLS} cells; unmerge the empty ones and save it again.")
    try:
        book = openpyxl.load_workbook(io.BytesIO(content), data_only=True)
        formulas = openpyxl.load_workbook(io.BytesIO(content), data_only=False)
    except Exception as error:  # openpyxl raises whatever a damaged part makes it meet
        reason = (str(error).splitlines() or [""])[0][:160] or type(error).__name__
        raise InputError(f"{path} is no Excel workbook ({reason}); save it as .xlsx again.") from None
    boxes = sum(data.count(b"<xdr:txBody>") for name, data in parts.items() if "xl/drawings/" in name)
    pictures = sum("xl/media/" in name for name in parts)
    for number, sheet in enumerate(book.worksheets):
        problems: list[str] = []
        notes: list[str] = []
        if not number:
            problems += [f"{boxes} text box(es) of the workbook were not read."] if boxes else []
            notes += [f"{pictures} picture(s) of the workbook were not read."] if pictures else []
        if sheet.sheet_state != "visible":
            yield sheet.title, [], problems, [*notes, "it is hidden and was not read."]
            continue
        if (sheet.max_row or 0) * (sheet.max_column or 0) > _MOST_CELLS:
            problems.append(f"it reaches over more than {_MOST_CELLS} cells and was not read; delete the empty ones.")
            yield sheet.title, [], problems, notes
            continue
        rows: list[list[str | None]] = [[_shown(cell) for cell in row] for row in sheet.iter_rows()]
        for area in sheet.merged_cells.ranges:
            text = rows[area.min_row - 1][area.min_col - 1]
            for row in rows[area.min_row - 1 : area.max_row]:
                row[area.min_col - 1 : area.max_col] = [text] + [None] * (area.max_col - area.min_col)
        notes += _without_hidden(sheet, rows)
        uncounted = _uncounted(sheet, formulas[sheet.title])
        if uncounted:
            problems.append(
                f"{len(uncounted)} formula(s) have no stored value ({', '.join(uncounted[:5])}); open the file in Excel, "
                "save it and add it again."
            )
        if comments := sum(cell.comment is not None for row in sheet.iter_rows() for cell in row):
            notes.append(f"{comments} comment(s) were not read.")
        yield sheet.title, rows, problems, notes


def _without_hidden(sheet: Any, rows: list[list[str | None]]) -> list[str]:
    """Empties struck-through cells and hidden rows and takes hidden columns out; sentences on it."""
    struck = [
        cell for row in sheet.iter_rows() for cell in row if cell.font and cell.font.strike and cell.value is not None
    ]
    for cell in struck:
        rows[cell.row - 1][cell.column - 1] = None
    lines = [number for number, row in sheet.row_dimensions.items() if row.hidden and any(rows[number - 1 : number])]
    for number in lines:
        rows[number - 1] = [None] * len(rows[number - 1])
    hidden = {
        number
        for column in sheet.column_dimensions.values()
        if column.hidden
        for number in range(column.min - 1, column.max)
        if any(any(row[number : number + 1]) for row in rows)
    }
    for row in rows:
        row[:] = [cell for number, cell in enumerate(row) if number not in hidden]
    counts = ((len(struck), "struck-through cell(s)"), (len(lines), "hidden row(s)"), (len(hidden), "hidden column(s)"))
    return [f"{count} {what} were not read." for count, what in counts if count]


def _uncounted(sheet: Any, formulas: Any) -> list[str]:
    """Cells with a formula whose value the file does not hold."""
    pairs: Callable[[Any], Iterator[Any]] = lambda of: (cell for row in of.iter_rows() for cell in row)  # noqa: E731
    return [
        formula.coordinate
        for value, formula in zip(pairs(sheet), pairs(formulas), strict=False)
        if getattr(formula, "data_type", "") == "f" and value.value is None
    ]


_FORMAT = re.compile(r'(?:"([^"]*)"|\\?([<>≤≥±=~]+))?\s*(?:General|[#0,.]+)(%)?\s*(?:"([^"]*)")?')


def _shown(cell: Cell | Any) -> str:
    """A cell as Excel shows it: numbers with the words and signs of their format ('">"0.5" mm"'), dates by ISO 8601."""
    value = cell.value
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).upper()
    if hasattr(value, "isoformat"):
        return str(value.isoformat()).replace("T00:00:00", "")
    if not isinstance(value, (int, float)):
        return str(value)
    number = f"{value:.10g}"
    form = _FORMAT.fullmatch((cell.number_format or "General").split(";")[0])
    if form is None:
        return number
    before, unit = form.group(1) or form.group(2) or "", form.group(4) or ""
    return f"{before}{' ' if before else ''}{f'{value * 100:.10g} %' if form.group(3) else number}{unit}".strip()
