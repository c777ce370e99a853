"""What the columns of a table about defects mean, and how its rows become statements that stand alone.

People keep such knowledge in three shapes: one sentence a row (column "fact", "text" or "description"), a defect
catalogue or FMEA sheet with one column a question ("defect", "cause", "effect", "detection"), or any other table, such as
a disposition table ("size", "disposition"), whose rows are read with their headings.

A table is a list of rows of cells. A cell is a string; None is a place that the cell to its left also covers.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sage_ad.knowledge.facts import KINDS, Kind
from sage_ad.knowledge.text.resources import resource
from sage_ad.knowledge.text.segmentation import plain_text

_LEAD: dict[Kind, str] = {
    "appearance": "appearance",
    "cause": "cause",
    "consequence": "consequence",
    "normal-variation": "still normal",
    "inspection": "inspection",
}
NUMBERING = re.compile(r"^\s*\d{1,2}(?:\.\d{1,2}){0,3}[.)]?\s+")
"""Number of a chapter in front of its heading."""
_HEADER_WITHIN = 30  # rows before the headings: company, date of export, title
_LONGEST_HEADING = 80

_UNIT = re.compile(r"\s*[\[(/]\s*(mm|cm|µm|μm|um|nm|%|mm²|°C|g|kg|N|MPa|bar|s|min)\s*[\])]?(?=,|$)")
"""The unit that a heading gives its numbers: "Size [mm]"."""

Row = Sequence[Any]


@functools.cache
def _synonyms() -> dict[str, Kind]:
    """Kind by any of its names."""
    questions = resource("columns.yaml")["questions"]
    return {name: kind for kind in KINDS for name in (kind, kind.replace("-", "_"), *questions[kind])}


@dataclass(frozen=True)
class Statement:
    """What one cell (or one whole row) of a table says.

    Attributes:
        text: the cell, led by its subject where the cell alone would not tell ("Micro-crack, cause: hail").
        kind: the kind that its column or the column "kind" names; None when neither does.
        products: names from a product column.
        defects: names from a defect column.
        column: heading of the column that it came from; empty for a whole row.
        row: number of its row in the table, from 0.
        plain: whether the headings (or the defect that the row names) say that it is a fact; else it is judged like a
            sentence of prose.
    """

    text: str
    kind: Kind | None = None
    products: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
    column: str = ""
    row: int = 0
    plain: bool = True


@dataclass(frozen=True)
class Columns:
    """Which column of a table (by its number, from 0) plays which part.

    Attributes:
        headings: one a column, as written there.
        text: column of whole sentences.
        kind: column that names the kind of that sentence.
        file: column of image files.
        products: columns of product names.
        defects: columns of defect names.
        questions: columns that each answer one question, and its kind.
        unread: columns of ratings, dates and the like.
    """

    headings: tuple[str, ...] = ()
    text: int | None = None
    kind: int | None = None
    file: int | None = None
    products: tuple[int, ...] = ()
    defects: tuple[int, ...] = ()
    questions: Mapping[int, Kind] = field(default_factory=dict)
    unread: frozenset[int] = frozenset()

    @property
    def usable(self) -> bool:
        """Whether a heading says that its column holds facts."""
        return self.text is not None or bool(self.questions)

    @property
    def known(self) -> int:
        """Number of columns whose heading is known."""
        single = sum(column is not None for column in (self.text, self.kind, self.file))
        named = {self.headings[column] for column in (*self.products, *self.defects)}
        return single + len(named) + len(self.questions)


@dataclass
class Table:
    """What a table says.

    Attributes:
        columns: the part of each column.
        header: number of the row of headings, from 0.
        statements: what its cells or rows say.
        problems: sentences on rows that could not be read, each beginning with "row N".
        notes: sentences on what was completed or not read, without the table's name.
    """

    columns: Columns
    header: int
    statements: list[Statement] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def recognise_columns(headings: Sequence[str | None]) -> Columns:
    """Finds the part that each column plays by its heading (any case, spaces or underscores)."""
    names = [_name(heading) for heading in headings]
    words = resource("columns.yaml")

    def first(part: str) -> int | None:
        return next((column for word in words[part] for column, name in enumerate(names) if name == word), None)

    def all_of(part: str) -> tuple[int, ...]:
        return tuple(column for column, name in enumerate(names) if name in words[part])

    text, defects = first("text"), all_of("defect")
    if text is not None and names[text] in words["remarks"] and all_of("disposition"):
        text = None  # beside a disposition a remark is a part of its row
    return Columns(
        headings=tuple(" ".join(str(heading or "").split()) for heading in headings),
        text=text,
        kind=first("kind"),
        file=first("file"),
        products=all_of("product"),
        # "Class" is a column of defects only where no other one is.
        defects=tuple(column for column in defects if names[column] not in words["class"]) or defects,
        questions={column: _synonyms()[name] for column, name in enumerate(names) if name in _synonyms()},
        unread=frozenset(all_of("administration")),
    )


def _name(heading: str | None) -> str:
    plain = re.sub(r"\((s|es)\)", r"\1", str(heading or "").strip().lower())
    plain = re.sub(r"[\W_]+", "_", plain).strip("_")
    singular = re.sub(r"(effect|cause|mechanism|action)s_", r"\1_", plain)
    return singular if singular in _synonyms() else plain


def find_header(rows: Sequence[Row]) -> int | None:
    """Number of the row of headings: of the first rows the one with most known headings; None when none has any."""
    best, most = None, 0
    for number, row in enumerate(rows[:_HEADER_WITHIN]):
        if any(len(cell or "") > _LONGEST_HEADING for cell in row):
            continue
        columns = recognise_columns(row)
        if columns.known > most and (columns.usable or columns.products or columns.defects):
            best, most = number, columns.known
    return best


def read_table(rows: Sequence[Row], *, about: str = "", fill: bool = True, header: int | None = None) -> Table | None:
    """Reads a table, upright or lying (headings in the first column).

    Args:
        rows: its rows; cells that hold "ditto" repeat the cell above.
        about: the title above it, for rows that name no product or defect themselves.
        fill: whether an empty product or defect repeats the one above, as in printed tables and spreadsheets (not in
            tables of sentences, and not where a record says nothing of it).
        header: number of the row of headings, from 0; None looks for it.

    Returns:
        None when it has no row of headings with a row below.
    """
    width = max((len(row) for row in rows), default=0)
    if header is None:
        header = find_header(rows)
        lying = [[row[column] if column < len(row) else "" for row in rows] for column in range(width)]
        known = recognise_columns(rows[header]).known if header is not None else 0
        # Two known headings at least: one word such as "test" in a first column proves nothing.
        if len(rows) > 1 and width > 1 and recognise_columns(lying[0]).known > max(1, known):
            rows, header = lying, 0
    if header is None:
        header = next((number for number, row in enumerate(rows) if sum(bool(cell) for cell in row) > 1), None)
    if header is None or header + 1 >= len(rows):
        return None
    rows, header = _joined_headings(rows, header)
    titles = [row[0] for row in rows[:header] if row and row[0] and sum(bool(cell) for cell in row) == 1]
    table = Table(recognise_columns(rows[header]), header)
    _Rows(table, about or (titles[-1] if titles else ""), fill and table.columns.text is None).read(rows)
    return table


def _joined_headings(rows: Sequence[Row], header: int) -> tuple[Sequence[Row], int]:
    """The rows with headings of two lines ("Pole face" over "Class A" and "Class B") as one, and its number."""
    above, below = rows[header], rows[header + 1]
    reaches_down = any(cell and cell == under for cell, under in zip(above, below, strict=False))
    if None not in above or not reaches_down or header + 2 >= len(rows):
        return rows, header
    joined, over = [], ""
    for cell, under in zip(above, below, strict=False):
        over = over if cell is None else cell
        joined.append(", ".join(dict.fromkeys(part for part in (over, under) if part)))
    return [*rows[: header + 1], joined, *rows[header + 2 :]], header + 1


class _Rows:
    """Goes through the rows below the headings once."""

    def __init__(self, table: Table, about: str, fill: bool) -> None:
        self.table = table
        self.columns = table.columns
        about = NUMBERING.sub("", about)
        # "Disposition" above a table with a column of that name adds nothing to its rows.
        known = {word for heading in self.columns.headings for word in _name(heading).split("_")}
        self.about = "" if set(_name(about).split("_")) <= known or is_vague(about) else about
        self.fill = fill
        self.filled: dict[str, int] = {}
        self.left_out: dict[str, int] = {}
        self.subjects: Counter[tuple[Any, ...]] = Counter()
        self.limits: frozenset[int] = frozenset()
        found = {column: _UNIT.search(heading) for column, heading in enumerate(self.columns.headings)}
        self.units = {column: match[1] for column, match in found.items() if match}

    def read(self, rows: Sequence[Row]) -> None:
        names = (*self.columns.products, *self.columns.defects)
        above: list[Any] = []
        below = rows[self.table.header + 1 :]
        # In a column of numbers "none" is one.
        self.limits = frozenset(
            column for row in below for column, cell in enumerate(row) if re.match(r"\W*\d", str(cell or ""))
        )
        complete: list[tuple[int, str, list[Any]]] = []
        for number, row in enumerate(below, start=1):
            cells = [self._cell(column, cell, above) for column, cell in enumerate(row)]
            if not any(cells) or tuple(cells) == self.columns.headings[: len(cells)]:
                continue
            if any(cells[len(self.columns.headings) :]):
                self.table.problems.append(
                    f"row {number} has more cells than there are headings (a separator inside a cell?); it was left out."
                )
                continue
            cells += [""] * (len(self.columns.headings) - len(cells))
            if sum(bool(cell) for cell in cells) == 1 and None in cells:
                self.about = next(cell for cell in cells if cell)  # a title across the table
                continue
            if self.fill:
                self._fill(cells, above, names)
            above = cells
            complete.append((number + self.table.header, self.about, cells))
        self.subjects = Counter(tuple(_said(cells[column]) for column in names) for _, _, cells in complete if names)
        for number, self.about, cells in complete:
            self.table.statements += self._statements(cells, number)
        for heading, count in self.filled.items():
            self.table.notes.append(f"{count} empty cell(s) of column {heading!r} repeat the cell above.")
        if self.left_out:
            names_left = ", ".join(repr(heading) for heading in self.left_out)
            self.table.notes.append(f"column(s) {names_left} (ratings, dates, numbers) were not read.")

    def _cell(self, column: int, cell: Any, above: Sequence[Any]) -> Any:
        if not isinstance(cell, str):
            return cell
        cell = " ".join(cell.split())
        words = resource("columns.yaml")
        if column in self.units and re.search(r"\d$", cell):
            return f"{cell} {self.units[column]}"
        if cell.lower() == "none" and column in self.limits:
            return cell
        if cell.lower() in words["ditto"] and column < len(above):
            return above[column]
        return "" if cell.lower() in words["nothing"] or not re.search(r"\w", cell) else cell

    def _fill(self, cells: list[Any], above: Sequence[Any], names: Sequence[int]) -> None:
        """Completes empty names from the row above; a new product does not inherit the old one's defect."""
        if not above:
            return
        columns = self.columns
        keys = names or [next((column for column, _ in self._others()), -1)]
        if not names and not columns.questions:
            keys = []
        new_product = any(cells[column] for column in columns.products)
        for column in keys:
            if column < 0 or cells[column] or not above[column] or (column in columns.defects and new_product):
                continue
            cells[column] = above[column]
            heading = columns.headings[column]
            self.filled[heading] = self.filled.get(heading, 0) + 1

    def _others(self) -> Iterator[tuple[int, str]]:
        """Columns whose heading is not known."""
        columns = self.columns
        used = {columns.text, columns.kind, columns.file, *columns.products, *columns.defects, *columns.questions}
        for column, heading in enumerate(columns.headings):
            if column not in used and column not in columns.unread:
                yield column, heading

    def _statements(self, cells: Sequence[Any], row: int) -> Iterator[Statement]:
        columns = self.columns
        products, defects = _names(cells, columns.products), _names(cells, columns.defects)
        for column in sorted(columns.unread):
            if cells[column]:
                self.left_out[columns.headings[column]] = 1
        words = resource("columns.yaml")["disposition"]
        decisions = {column for column, heading in enumerate(columns.headings) if _name(heading) in words}
        decided = columns.text is None and bool(decisions)
        names = (*columns.products, *columns.defects)
        # Where rows are about one and the same, what else stands in a row tells for which case it holds.
        cases = columns.text is None and self.subjects[tuple(_said(cells[column]) for column in names)] > 1
        if decided or (not columns.usable and (cases or not columns.defects)):
            if text := self._whole_row(cells, ", ".join((*products[:1], *defects))):
                plain = decided or bool(defects)
                yield Statement(text, "consequence" if decided else None, products, defects, "", row, plain=plain)
            if not columns.usable:
                return
        others = [(column, heading, text) for column, heading in self._others() if (text := _said(cells[column]))]
        subject = ", ".join((*products[:1], *defects[:1]))
        case = [
            f"{_in_sentence(heading)}: {text}"
            for column, heading, text in others
            if column not in decisions and (cases or re.match(r"\W*\d", text))
        ]
        # What to do, and how bad it is, hold for the size beside them.
        sized = ", ".join((subject, *case)) if subject else ""
        if subject and cases:
            subject = sized
        if decided or (subject and cases):
            others = []
        if not subject and columns.text is None and others and 2 < len(others[0][2]) <= 60:
            _, heading, name = others.pop(0)
            subject = ": ".join(part for part in (self.about, _measured(heading, name)) if part)
        if columns.text is not None and (text := _said(cells[columns.text])):
            kind = _kind(_said(cells[columns.kind])) if columns.kind is not None else None
            yield Statement(text, kind, products, defects, columns.headings[columns.text], row)
        for column, question in columns.questions.items():
            heading = columns.headings[column]
            if (text := _said(cells[column])) and question == "consequence" and _is_number(text):
                self.left_out[heading] = 1  # a rating from 1 to 10
            elif text:
                # A cell that covers two columns answers neither question alone.
                own = None if column + 1 < len(cells) and cells[column + 1] is None else question
                lead = _lead(heading, question)
                about = sized if sized and lead != _LEAD[question] else subject
                text = _led(text, about, lead if own else "")
                yield Statement(text, own, products, defects, columns.headings[column], row)
        for column, heading, text in others:
            if columns.text is not None or (_is_number(text) and not _is_measure(heading)):
                self.left_out[heading or f"column {column + 1}"] = 1
            else:
                text = _led(text, subject, _in_sentence(heading))
                if column in self.limits and _is_measure(self.about):  # "Acceptance limits" says what the number is
                    text = f"{self.about}: {text}"
                yield Statement(text, None, products, defects, heading, row, plain=bool(defects))

    def _whole_row(self, cells: Sequence[Any], subject: str) -> str:
        """ "Gas pore, size: 5 mm, disposition: second choice", under the title of the table."""
        columns = self.columns
        named = {*columns.unread, *columns.products, *columns.defects, *columns.questions}
        parts: list[str] = [subject[:1].upper() + subject[1:]] if subject else []
        for column, cell in enumerate(cells):
            heading = columns.headings[column]
            if (text := _said(cell)) and column not in named:
                parts.append(f"{_in_sentence(heading) if parts else heading}: {text}" if heading else text)
        worded = any(re.search(r"[^\W\d_]{2,}", _said(cell)) for cell in cells)
        text = ", ".join(parts) if len(parts) > 1 and worded else ""
        return f"{self.about}: {text}" if self.about and text else text


def _lead(heading: str, kind: Kind) -> str:
    """What leads a cell: the name of its kind, or a word of the heading that says more ("action", "severity")."""
    known = resource("columns.yaml")["leads"]
    return next((word for word in re.findall(r"[a-z]+", heading.lower()) if word.rstrip("s") in known), _LEAD[kind])


def _in_sentence(heading: str) -> str:
    """A heading within a sentence: "Size [mm]" is "size"; "MG-20", "RPN" and the "A" of "Class A" stay."""
    return " ".join(word.lower() if word[1:].islower() else word for word in _UNIT.sub("", heading).split())


def _measured(heading: str, name: str) -> str:
    """The name of a row; a measure ("5 mm") needs its heading ("size 5 mm")."""
    return f"{heading.lower()} {name}" if heading and re.match(r"[\W\d]", name) else name


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[\d\s.,%+-]+", text))


def _is_measure(heading: str) -> bool:
    return bool(set(re.findall(r"[^\W\d_]+", heading.lower())) & set(resource("columns.yaml")["measures"]))


def _led(text: str, subject: str, lead: str) -> str:
    """A cell of a catalogue ("hail impact") with the subject that only its row tells."""
    words = re.findall(r"\w{3,}", subject.lower())
    if not subject or (words and all(word in text.lower() for word in words)):
        return text
    return f"{subject[:1].upper()}{subject[1:]}{', ' if lead else ''}{lead}: {text}"


def _names(cells: Sequence[Any], columns: Sequence[int]) -> tuple[str, ...]:
    found: list[str] = []
    for column in columns:
        value = cells[column]
        parts = value if isinstance(value, (list, tuple)) else re.split(r"[;|]", _said(value))
        everything = resource("columns.yaml")["everything"]
        found.extend(
            name for part in parts if (name := _said(part)) and len(name) <= 80 and name.lower() not in everything
        )
    return tuple(dict.fromkeys(found))


def _kind(value: str) -> Kind | None:
    return _synonyms().get(value.lower().strip()) or _synonyms().get(re.sub(r"[\W_]+", "_", value.lower()).strip("_"))


def _said(value: Any) -> str:
    """A cell as one line of text; nothing and nested values say nothing alone."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return " ".join(value.split()) if isinstance(value, str) else ""


def table_lines(rows: Sequence[Sequence[str | None]]) -> str:
    """A table as lines of "| cell | cell |"; "||" stands where the cell to the left reaches over."""
    lines = []
    for row in rows:
        cells = ["" if cell is None else f" {' '.join(cell.split())} ".replace("|", r"\|") for cell in row]
        lines.append(f"|{'|'.join(cells)}|")
    return "\n".join(lines)


def table_cells(line: str, *, literal: bool) -> list[str | None]:
    """The cells of a line that `table_lines` or an author of Markdown wrote (there, "||" is an empty cell)."""
    pieces = re.split(r"(?<!\\)\|", line.strip())
    pieces = pieces[1 if not pieces[0].strip() else 0 : -1 if not pieces[-1].strip() else None]
    return [
        None if literal and not piece else plain_text(piece.replace(r"\|", "|"), literal=literal) for piece in pieces
    ]


def is_vague(heading: str) -> bool:
    """Whether a heading names neither a thing nor a kind of fact ("General", "Remarks", "Disposition")."""
    words = resource("columns.yaml")
    vague = {*words["vague"], *words["text"], *words["disposition"]}
    return _name(heading) in vague or _name(heading).removesuffix("s") in vague


def heading_kind(heading: str) -> Kind | None:
    """The kind of fact that a heading or label names ("Causes", "How to inspect"); None for any other."""
    words = re.findall(r"[a-z]+", heading.lower())
    if re.search(r"\b(?:not? (?:an? )?|non-)(?:defect|fault|flaw|reject)s?\b", heading.lower()) and len(words) <= 6:
        return "normal-variation"
    for size in (3, 2, 1):
        for start in range(len(words) - size + 1):
            if kind := _synonyms().get("_".join(words[start : start + size])):
                return kind if len(words) <= 5 else None
    return None
