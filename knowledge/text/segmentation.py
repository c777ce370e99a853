"""How a text falls into blocks (headings, paragraphs, bullets, table rows) and sentences, each with its span.

Plain Python, no library: a span always counts characters of the text that was given, so that a citation can be checked
by slicing. What a person would not read as prose (code, front matter, comments, rules) is left out here.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from sage_ad.knowledge.text.grammar import is_sentence

BlockKind = Literal["paragraph", "bullet", "table"]

_FENCE = re.compile(r"\s*(```|~~~)")
_HEADING = re.compile(r"\s{0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
_TITLE_TAG = re.compile(r"\s*<([A-Z][^<>\n]{1,120})>\s*$")  # <Broken Teeth>: how MMAD writes the title of an entry
_SETEXT = re.compile(r"\s{0,3}(=+|-{3,})\s*$")
_RULE = re.compile(r"\s*([-*_=~#.]\s*){3,}$")
_BULLET = re.compile(
    r"\s*(?:[-*+•‣▪●·–—■□○►➢➤→☐✓✔✗✘\uf06e\uf0a7\uf0b7\uf0d8\uf0fc]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+(?=\S)"
)
_TABLE_ROW = re.compile(r"\s*\|.*\|\s*$")
_TABLE_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
_MINUS = re.compile(r"\s*[-+*·–—]\s+\d")  # at a line's start, a sign before a number more often than a list
_NUMBERED_HEADING = re.compile(r"\s*\d{1,2}(?:\.\d{1,2}){0,3}\.?\s+[A-Z][^.!?]{2,80}$")
_NO_TITLE = re.compile(
    r".*(?:\.\s?){4}|[•‣▪●·–—*-]\s|\(?\d{1,3}\)\s|.*\bsee (?:page|chapter|section|fig)|(?:page|seite)\s+\d|"
    r"(?:notes?|caution|warning|danger|attention|important|achtung|warnung|hinweis|vorsicht)\b\s*(?:[\d:!–-]|$)|"
    r"(?:fig(?:ure)?|tab(?:le|elle)?|abb(?:ildung)?|photo|picture|image|bild|foto)\b\.?\s*[\d:]|(?:left|right|top|bottom|above|below)\s*:",
    re.I,
)
_CHAPTER = re.compile(r"\s*(\d{1,2}(?:\.\d{1,2}){0,3})\.?\s")
_QUOTE_MARK = re.compile(r"[ \t]*>[> \t]*")
_COMPARATOR = re.compile(r"[ \t]*>[ \t]*[=\d.,±~]")  # "> 0.5 mm" at the start of a wrapped line quotes nobody
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.S)

# A full stop after one of these ends no sentence.
_ABBREVIATIONS = re.compile(
    r"e\.g|i\.e|eg|ie|etc|cf|vs|approx|ca|resp|figs?|eqs?|nos?|nr|vol|sec|sect|ch|pp?|dr|mrs?|prof|st|min|max|incl|excl|"
    r"temp|dia|diam|refs?|tab|al|inc|ltd|co|corp|dept|est|std|specs?|typ"
)
# A closing tag ("[/NOTE]", "</b>") belongs to the sentence that it closes, not to the next one.
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?:\s*(?:\[/\w{1,20}\]|</\w{1,20}>|<\|\w{1,20}\|>))*(?=\s|$)|[。！？]")


@dataclass(frozen=True)
class Block:
    """A run of text that belongs together.

    Attributes:
        start: first character in the text.
        end: the character after the last.
        kind: "paragraph", "bullet" or "table" (one row).
        headings: titles above it, outermost first.
    """

    start: int
    end: int
    kind: BlockKind
    headings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sentence:
    """One sentence and where it stands.

    Attributes:
        text: the sentence without mark-up, one line.
        start: first character in the text that was split.
        end: the character after the last.
        block: number of its block in the text, so that neighbours can be distinguished from strangers.
        kind: kind of its block.
        headings: titles above it, outermost first.
    """

    text: str
    start: int
    end: int
    block: int
    kind: BlockKind
    headings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Titles:
    """The titles of a text whose type tells them, as that of a PDF page does.

    Attributes:
        levels: level, 1 the highest, of the title of one line that starts at a character of the text.
        above: titles by level that stand above its first line, as those of the page before.
        all_typed: whether type tells the titles of the whole document: then a first or last line that only looks like one is
            a running head ("Works manual - Vacuum flask"), which may belong to a chapter that begins further down.
    """

    levels: Mapping[int, int]
    above: Mapping[int, str]
    all_typed: bool = False


def split_sentences(
    text: str,
    *,
    markdown: bool = False,
    literal: bool = False,
    titles: Titles | None = None,
    words: Collection[str] = (),
) -> list[Sentence]:
    """Splits a text into sentences with spans.

    Args:
        text: any text; a line feed inside a paragraph is only a line break.
        markdown: whether "#", "```" and "---" are mark-up (they are for Markdown and for what the readers make of
            HTML and DOCX) or text.
        literal: whether "*", "_", "[...]" and tags inside a line are text (plain text, PDF, HTML, DOCX) or mark-up
            (Markdown, and what language models write).
        titles: the titles that are known; what else looks like one stands below them.
        words: known words, as for `plain_text`.
    """
    text = _blank(text, _COMMENT) if markdown and not literal else text
    if ">" in text:
        paragraphs = itertools.groupby(text.split("\n"), key=lambda line: bool(line.strip()))
        text = "\n".join(line for _, lines in paragraphs for line in _without_quote_marks([*lines]))
    sentences = []
    for number, block in enumerate(split_blocks(text, markdown=markdown, titles=titles)):
        for start, end in _sentence_spans(text, block):
            plain = text[start:end].strip()
            if block.kind != "table":
                plain = plain_text(plain, literal=literal, words=words)
            if plain:
                sentences.append(Sentence(plain, start, end, number, block.kind, block.headings))
    return sentences


def split_blocks(text: str, *, markdown: bool = False, titles: Titles | None = None) -> list[Block]:
    """Splits a text into paragraphs, bullets and table rows; headings become the context of what follows them."""
    return list(_Blocks(text, markdown, titles))


def headings_below(above: Mapping[int, str], level: int, title: str) -> dict[int, str]:
    """The headings by level after one more: it ends those of its level and below, and the chapter before its own number.

    "4 Dispositions" ends "3 Vacuum flask" in whatever type it is set.
    """
    number = _number(title)
    if number and (before := [k for k, name in above.items() if _number(name) == (*number[:-1], number[-1] - 1)]):
        above = {k: name for k, name in above.items() if k < max(before)}
    return {k: name for k, name in above.items() if k < level} | {level: title}


def _number(title: str) -> tuple[int, ...]:
    """The number of a chapter, (2, 1) of "2.1 Rim chip"; () without one."""
    match = _CHAPTER.match(title)
    return tuple(map(int, match.group(1).split("."))) if match else ()


def is_no_title(line: str) -> bool:
    """Whether a short line is no title in whatever type: a warning, a caption, an item of a list, a page number."""
    return bool(_NO_TITLE.match(line))


def on_most_pages(count: int) -> int:
    """On how many of so many pages a line stands that is a running head or foot."""
    return max(3, (count + 1) // 2)


class _Blocks:
    """Goes through the lines of a text once; an iterator of its blocks."""

    def __init__(self, text: str, markdown: bool, titles: Titles | None) -> None:
        self.text = text
        self.markdown = markdown
        self.titles = titles.levels if titles else {}
        self.headings: dict[int, str] = dict(titles.above) if titles else {}
        self.level = 6 if self.titles or self.headings else 2  # of what only looks like a heading
        self.in_table = False
        self.open: tuple[int, int, BlockKind] | None = None
        self.lines = [(match.start(), match.end()) for match in re.finditer(r"[^\n]*\n|[^\n]+$", text)]
        written = [number for number in range(len(self.lines)) if self._stripped(number)]
        self.running = {written[0], written[-1]} if titles and titles.all_typed and written else set()

    def __iter__(self) -> Iterator[Block]:
        index = self._after_front_matter()
        fence: str | None = None
        while index < len(self.lines):
            start, end = self.lines[index]
            line = self.text[start:end].rstrip("\r\n")
            mark = _FENCE.match(line) if self.markdown else None
            if mark and (fence is None or mark.group(1) == fence):
                fence = None if fence else mark.group(1)
                yield from self._close()
            elif fence is None:
                yield from self._line(index, line, start)
            index += 1
        yield from self._close()

    def _after_front_matter(self) -> int:
        """Number of the first line after a YAML header ("---" on the first line up to the next "---")."""
        if not self.markdown or not self.lines or self._stripped(0) != "---":
            return 0
        for index in range(1, min(len(self.lines), 200)):
            if self._stripped(index) in {"---", "..."}:
                return index + 1
        return 0

    def _line(self, index: int, line: str, start: int) -> Iterator[Block]:
        if not line.strip():
            self.in_table = False
            yield from self._close()
            return
        if self.markdown and "|" in line and (self.in_table or _TABLE_RULE.match(self._stripped(index + 1))):
            # Markdown tables need no bars at the ends of their rows.
            yield from self._close()
            if self.in_table or "-" in self._stripped(index + 1):
                self.in_table = True
                if not _TABLE_RULE.match(line):
                    yield self._block(start, start + len(line), "table")
                return
        level = self.titles.get(start)
        if title := (level, line.strip()) if level else self._heading(index, line):
            yield from self._close()
            level, name = title
            self.headings = headings_below(self.headings, level, name)
        elif _RULE.match(line) or (self.markdown and "|" in line and _TABLE_RULE.match(line)):
            yield from self._close()
        elif _TABLE_ROW.match(line):
            yield from self._close()
            yield self._block(start, start + len(line), "table")
        elif (bullet := _BULLET.match(line)) and not (_MINUS.match(line) and self._unfinished(start)):
            yield from self._close()
            self.open = (start + bullet.end(), start + len(line), "bullet")
        elif self.open:
            self.open = (self.open[0], start + len(line), self.open[2])
        else:
            indent = len(line) - len(line.lstrip())
            self.open = (start + indent, start + len(line), "paragraph")

    def _unfinished(self, start: int) -> bool:
        """Whether a paragraph is open whose last line ends in the middle of a sentence."""
        return self.open is not None and self.open[2] == "paragraph" and self.text[:start].rstrip()[-1:] not in ".:;!?"

    def _heading(self, index: int, line: str) -> tuple[int, str] | None:
        """Level and title, when the line is a heading."""
        if tag := _TITLE_TAG.match(line):
            return 1, tag.group(1).strip()
        if self.markdown:
            if match := _HEADING.match(line):
                return len(match.group(1)), plain_text(match.group(2))
            underline = _SETEXT.match(self._stripped(index + 1)) if not self.open else None
            if underline and not _BULLET.match(line):
                return (1 if underline.group(1).startswith("=") else 2), plain_text(line)
            return None
        if index in self.running or not self._looks_like_heading(index, line):
            return None
        # Numbers tell which of them stands below which; one without a number stands below those that have one.
        number = _number(line)
        depth = len(number) - 1 if number else 4 if any(map(_number, self.headings.values())) else 0
        return self.level + depth, line.strip()

    def _looks_like_heading(self, index: int, line: str) -> bool:
        """Plain text has no mark-up: a heading is a short line without a full stop that stands alone or is numbered."""
        title = line.strip()
        if len(title) > 80 or title[-1] in ".,;:!?" or is_no_title(title):
            return False
        if _BULLET.match(line) and not _NUMBERED_HEADING.match(line):
            return False
        if is_sentence(_CHAPTER.sub("", title)):
            return False
        if _NUMBERED_HEADING.match(line):
            return not self.open
        alone = not self.open and not self._stripped(index + 1)
        return (alone and title[0].isupper() and len(title.split()) <= 10) or (title.isupper() and len(title) > 4)

    def _stripped(self, index: int) -> str:
        if index >= len(self.lines):
            return ""
        start, end = self.lines[index]
        return self.text[start:end].strip()

    def _block(self, start: int, end: int, kind: BlockKind) -> Block:
        return Block(start, end, kind, tuple(self.headings[level] for level in sorted(self.headings)))

    def _close(self) -> Iterator[Block]:
        if self.open:
            start, end, kind = self.open
            self.open = None
            yield self._block(start, end, kind)


def _sentence_spans(text: str, block: Block) -> Iterator[tuple[int, int]]:
    if block.kind == "table":
        yield block.start, block.end
        return
    start = block.start
    for match in _SENTENCE_END.finditer(text, block.start, block.end):
        if match.end() < block.end and not _ends_sentence(text, match, start, block.end):
            continue
        yield from _trim(text, start, match.end())
        start = match.end()
    yield from _trim(text, start, block.end)


def _trim(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if end > start:
        yield start, end


def _ends_sentence(text: str, match: re.Match[str], start: int, end: int) -> bool:
    """Whether the stop at `match` ends a sentence: not after an abbreviation or initial, nor before a small letter."""
    # Only the next few and the last few characters are looked at, so that a book without a blank line stays quick.
    after = text[match.end() : min(end, match.end() + 40)].lstrip()
    if after and after[0].islower():
        return False
    if match.group() == ".":
        word = re.search(r"([\w.]+)$", text[max(start, match.start() - 20) : match.start()])
        last = word.group(1).lower() if word else ""
        if _ABBREVIATIONS.fullmatch(last) and (after[:1].isdigit() or last not in {"no", "etc", "max", "min", "al"}):
            return False
        if len(last) == 1 and last.isalpha() and text[match.start() - 1].isupper():
            return False
    return True


_MARKUP: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), " "),  # a picture says nothing here
    (re.compile(r"\[([^\[\]]+)\]\((?:<[^<>]*>|[^()\s]*)(?:\s+[\"'][^)]*)?\)"), r"\1"),
    (re.compile(r"^\s*\[\^[\w-]+\]:|\[\^?\d+\]|\[\^[\w-]+\]"), ""),  # footnotes and citation marks
    (re.compile(r"(?<!\w)(\*\*|__)(?=\S)(.+?)(?<=\S)\1(?!\w)|(\*\*)(?=\S)(.+?)(?<=\S)\*\*"), r"\2\4"),
    (re.compile(r"(?<![\w*])([*_])(?=\S)([^*_]+?)(?<=\S)\1(?![\w*])"), r"\2"),
    (re.compile(r"`([^`]*)`"), r"\1"),
    (re.compile(r"</?(?:b|i|em|strong|sub|sup|u|span|br|p|a|code)(?:\s+[\w-]+=[^<>]*)?\s*/?>", re.I), " "),
    (re.compile(r"\\([!-/:-@\[-`{-~])"), r"\1"),
)
# From its first letter on, since a "word" of a hostile file may have a million.
_BROKEN_WORD = re.compile(r"(?<!\w)(\w*)([-\u00ad\u2010])[^\S\n]*\n\s*(\w+)")
LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")


def plain_text(text: str, *, literal: bool = False, words: Collection[str] = ()) -> str:
    """A piece of text as one line: no words broken over two lines, no invisible characters or ligatures, and no Markdown.

    Args:
        text: the piece.
        literal: leave what would be Markdown as it stands.
        words: known words in small letters, which tell "low-angle" from "de-formation" where a line ends after the hyphen.
    """
    text = _BROKEN_WORD.sub(lambda match: _mended(match, words), text)
    if not literal:
        for pattern, replacement in _MARKUP:
            text = pattern.sub(replacement, text)
        text = html.unescape(text)
    return " ".join(_INVISIBLE.sub("", text).translate(LIGATURES).split())


def whole_words(text: str) -> set[str]:
    """The words of a text in small letters, and its hyphenated ones, but for those that are broken at the end of a line."""
    text = _BROKEN_WORD.sub(" ", text).lower()
    return {*re.findall(r"[^\W\d_]{3,}", text), *re.findall(r"\b[^\W\d_]+-[^\W\d_]+", text)}


def _mended(match: re.Match[str], words: Collection[str]) -> str:
    """A word that is broken at the end of a line, in one piece, with its hyphen if that is its own."""
    first, hyphen, second = match.groups()
    if hyphen == "\u00ad":
        return first + second
    if not first or second in {"and", "or", "to"}:  # "pre- and post-weld"
        return match.group()
    whole = first + second
    if not (first + second[0]).islower() or not whole.isalpha():  # X-ray, ISO 6520-1
        return f"{first}-{second}"
    pair = f"{first}-{second}"
    own = pair in words or (first in words and second in words)
    return pair if own and whole not in words else whole


def _without_quote_marks(lines: list[str]) -> Iterator[str]:
    """The lines of a paragraph with spaces for the ">" of a quotation, so that all spans stay what they were."""
    quoted = all(line.lstrip().startswith(">") for line in lines) and not _COMPARATOR.match(lines[0])
    for line in lines:
        mark = _QUOTE_MARK.match(line)
        keep = mark is None or (not quoted and _COMPARATOR.match(line))
        yield line if keep or mark is None else " " * len(mark.group()) + line[mark.end() :]


def _blank(text: str, pattern: re.Pattern[str]) -> str:
    """Overwrites what matches with spaces, so that the spans of everything else stay what they were."""
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
