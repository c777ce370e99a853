"""What a kept library writes is read back equal: signs, units and comparators, over formats, encodings, separators."""

from __future__ import annotations

import csv
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import docx
import openpyxl
import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st
from reportlab.lib.pagesizes import A4, landscape
from reportlab.pdfgen import canvas

from sage_ad.knowledge.ingestion.readers import SentenceParser, reader_for
from sage_ad.knowledge.text.segmentation import split_sentences

SIGNS = [
    "Reject the shaft if a scratch is > 0.5 mm deep on the bearing seat.",
    "The coating thickness of a good pin lies between <8 µm and >12 µm.",
    "Accept a dent if depth <= 0.2 mm and width >= 3 mm at a bore of Ø 30.",
    "Pores with a diameter of 0.3 ± 0.1 mm are normal at 20 °C.",
    "A leak rate above 1·10^-3 mbar*l/s is a reason to reject the tank, *not* to rework it.",
    "The roughness Ra of a good seat is 0.8_1.6 µm, blow holes of ~ 2 mm are repaired by ~~welding~~ impregnation.",
    "Parts with code [A] or [B](see list) on the label are inspected twice & marked 'ok'.",
    "Scrap the gear when w<0.8 of the drawing value and wear>0.2 on any tooth.",
]
BEYOND_WESTERN = ["Scrap it if d ≤ 0.3 mm or d ≥ 0.9 mm, ΔE > 2 or R < 5 Ω, −0.1 mm at most."]


def read(path: Path) -> list[str]:
    nodes = SentenceParser().get_nodes_from_documents(reader_for(path).load_data(path))
    return [node.get_content() for node in nodes]


def write_text(path: Path, sentences: list[str], encoding: str = "utf-8") -> None:
    path.write_bytes("\r\n\r\n".join(sentences).encode(encoding))


def write_docx(path: Path, sentences: list[str]) -> None:
    document = docx.Document()
    for sentence in sentences:
        paragraph = document.add_paragraph()
        for word in sentence.split(" "):  # runs, as Word cuts them
            paragraph.add_run(word + " ")
    document.save(str(path))


def write_html(path: Path, sentences: list[str]) -> None:
    soup = BeautifulSoup("<html><head><meta charset='utf-8'></head><body></body></html>", "html.parser")
    for sentence in sentences:
        paragraph = soup.new_tag("p")
        paragraph.string = sentence
        assert soup.body is not None
        soup.body.append(paragraph)
    path.write_text(str(soup), encoding="utf-8")


def write_xlsx(path: Path, sentences: list[str]) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    for sentence in ("text", *sentences):
        book.active.append([sentence])
    book.save(path)


def write_json(path: Path, sentences: list[str]) -> None:
    path.write_text(json.dumps([{"text": sentence} for sentence in sentences]))


def write_pdf(path: Path, sentences: list[str]) -> None:
    sheet = canvas.Canvas(str(path), pagesize=landscape(A4))
    for sentence in sentences:
        sheet.setFont("Helvetica", 9)
        sheet.drawString(40, 500, sentence)
        sheet.showPage()
    sheet.save()


def write_csv(
    path: Path, sentences: list[str], encoding: str = "utf-8", delimiter: str = ",", quote: int = csv.QUOTE_MINIMAL
) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=quote)  # type: ignore[arg-type]
    writer.writerows([["product", "text"], *(["shaft", sentence] for sentence in sentences)])
    path.write_bytes(out.getvalue().encode(encoding))


WRITERS: dict[str, Callable[[Path, list[str]], None]] = {
    "txt": write_text, "docx": write_docx, "html": write_html, "xlsx": write_xlsx, "json": write_json, "csv": write_csv,
    "pdf": write_pdf,
}  # fmt: skip


@pytest.mark.parametrize("ending", WRITERS)
def test_signs_survive_every_format(tmp_path: Path, ending: str):
    path = tmp_path / f"signs.{ending}"
    sentences = SIGNS if ending == "pdf" else SIGNS + BEYOND_WESTERN  # Helvetica has no ≤
    WRITERS[ending](path, sentences)
    assert read(path) == sentences


def test_signs_survive_markdown_with_its_mark_up_gone(tmp_path: Path):
    path = tmp_path / "signs.md"
    path.write_text("\n\n".join(SIGNS + BEYOND_WESTERN), encoding="utf-8")
    # What is struck through no longer holds.
    held = [text.replace("*not*", "not").replace("~~welding~~ ", "") for text in SIGNS + BEYOND_WESTERN]
    assert read(path) == held


def test_a_comparator_at_the_start_of_a_line_is_no_quotation_and_a_sign_no_bullet(tmp_path: Path):
    lines = "A scratch is rejected if it is\n> 0.5 mm deep or changes the depth by\n- 0.1 mm, which is\n>= the limit."
    for name in ("a.md", "a.txt"):
        (tmp_path / name).write_text(f"> A quotation is no\n> comparison.\n\n{lines}\n")
        assert read(tmp_path / name) == [
            "A quotation is no comparison.",
            "A scratch is rejected if it is > 0.5 mm deep or changes the depth by - 0.1 mm, which is >= the limit.",
        ]


def test_escapes_and_entities_of_markdown(tmp_path: Path):
    (tmp_path / "a.md").write_text("A depth \\> 3 mm or &lt; 1 mm of a\\_b is <b>bad</b>, and so is a<b and c>d.")
    assert read(tmp_path / "a.md") == ["A depth > 3 mm or < 1 mm of a_b is bad , and so is a<b and c>d."]


@pytest.mark.parametrize(
    "text",
    ["> a\n" + " " * 50_000 + "x > 3 mm", "[" * 20_000, "| " * 20_000, "**" * 10_000, "<b " * 20_000],
    ids=["blanks", "brackets", "bars", "stars", "tags"],
)
def test_no_text_takes_more_than_linear_time(text: str):
    began = time.perf_counter()
    split_sentences(text, markdown=True)
    assert time.perf_counter() - began < 5


WORDS = [
    "pores",
    "wider",
    "than",
    "limit",
    "10",
    "0.5",
    "mm",
    ">",
    "<",
    ">=",
    "<=",
    "±",
    "µm",
    "°C",
    "Ø",
    "×",
    "a_b",
    "*x*",
]
WORDS += [
    "[A]",
    "(see",
    "list)",
    "&",
    "'",
    '"',
    "%",
    "x;y",
    "x,y",
    "é",
    "–",
    "1/2",
    "<b>",
    "--",
    "#3",
    "~",
    "^2",
    "=",
    "\\",
]
MORE = ["≤", "≥", "Δ", "Ω", "−", "⁻³", "″", "🙂", "中"]


def sentences_of(words: list[str]) -> st.SearchStrategy[list[str]]:
    one = st.lists(st.sampled_from(words), min_size=3, max_size=12).map(
        lambda found: f"Shafts have {' '.join(found)} wear."
    )
    return st.lists(one, min_size=1, max_size=4, unique=True)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(["txt", "docx", "html", "xlsx", "json"]), sentences_of(WORDS + MORE))
def test_any_sentence_is_read_back(ending: str, sentences: list[str]):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{ending}"
        WRITERS[ending](path, sentences)
        assert read(path) == sentences


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]),
    st.sampled_from(["csv", "tsv"]),
    st.data(),
)
def test_any_table_is_read_back(delimiter: str, quote: int, encoding: str, ending: str, data: st.DataObject):
    sentences = data.draw(sentences_of(WORDS if encoding == "cp1252" else WORDS + MORE))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{ending}"
        write_csv(path, sentences, encoding, delimiter, quote)
        assert read(path) == sentences


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]), st.data())
def test_any_encoding_is_read_back(encoding: str, data: st.DataObject):
    sentences = data.draw(sentences_of(WORDS if encoding == "cp1252" else WORDS + MORE))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.txt"
        write_text(path, sentences, encoding)
        assert read(path) == sentences
