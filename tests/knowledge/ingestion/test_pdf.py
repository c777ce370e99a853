"""PDF: columns, tables with and without rules, scanned pages, turned text, signs."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen import canvas
from reportlab.platypus import SimpleDocTemplate, Table

from sage_ad.knowledge.ingestion.readers import FactReader, SentenceParser, reader_for

SIGNS = "A scratch of > 0.5 mm or < 2 µm at Ø 3 ± 0.1 mm and 20 °C is rejected."
ROWS = [
    ["Defect", "Cause", "Action"],
    ["Blister", "Moisture under the enamel", "Scrap the part"],
    ["Pinhole", "Gas from the base metal", "Repair if fewer than three"],
]
SAID = [
    "Blister, cause: Moisture under the enamel",
    "Blister, action: Scrap the part",
    "Pinhole, cause: Gas from the base metal",
    "Pinhole, action: Repair if fewer than three",
]


def read(path: Path) -> tuple[list[str], FactReader]:
    reader = reader_for(path)
    nodes = SentenceParser().get_nodes_from_documents(reader.load_data(path))
    return [node.get_content() for node in nodes], reader


def draw(sheet: canvas.Canvas, left: float, lines: Sequence[str], top: float = 740) -> None:
    for number, line in enumerate(lines):
        sheet.drawString(left, top - 14 * number, line)


@pytest.fixture
def sheet(tmp_path: Path) -> canvas.Canvas:
    return canvas.Canvas(str(tmp_path / "a.pdf"), pagesize=A4)


def test_two_columns_are_read_one_after_the_other(tmp_path: Path, sheet: canvas.Canvas):
    left = [
        "A sliver is a thin flake of metal that",
        "is rolled into the surface. A roll",
        "mark repeats at equal distances.",
    ]
    right = [
        "Edge cracks run across the strip and",
        "begin at its edge. They come from",
        "cold edges or from coarse grain.",
    ]
    # Drawn line by line across both columns, as many programs write them.
    for number, pair in enumerate(zip(left, right, strict=True)):
        for position, line in zip((60, 310), pair, strict=True):
            sheet.drawString(position, 740 - 14 * number, line)
    sheet.save()
    assert read(tmp_path / "a.pdf")[0] == [
        "A sliver is a thin flake of metal that is rolled into the surface.",
        "A roll mark repeats at equal distances.",
        "Edge cracks run across the strip and begin at its edge.",
        "They come from cold edges or from coarse grain.",
    ]


def test_a_table_without_rules_keeps_its_cells_apart(tmp_path: Path, sheet: canvas.Canvas):
    draw(sheet, 60, ["Enamel is fired at 830 °C and then looked at."], top=770)
    for number, row in enumerate(ROWS):
        for position, cell in zip((60, 160, 340), row, strict=True):
            sheet.drawString(position, 740 - 20 * number, cell)
    draw(sheet, 60, ["A good part has an even gloss over its whole face and no spots."], top=600)
    sheet.save()
    assert read(tmp_path / "a.pdf")[0] == [
        "Enamel is fired at 830 °C and then looked at.",
        *SAID,
        "A good part has an even gloss over its whole face and no spots.",
    ]


def test_cells_over_two_lines_and_defects_that_are_not_repeated(tmp_path: Path, sheet: canvas.Canvas):
    for position, cell in zip((60, 160), ("Defect", "Cause"), strict=True):
        sheet.drawString(position, 740, cell)
    sheet.drawString(60, 715, "Blister")
    draw(sheet, 160, ["Moisture under the", "enamel layer"], top=715)
    sheet.drawString(160, 675, "Grease on the steel")
    sheet.save()
    assert read(tmp_path / "a.pdf")[0] == [
        "Blister, cause: Moisture under the enamel layer",
        "Blister, cause: Grease on the steel",
    ]


def test_a_ruled_table_with_merged_cells_and_on_two_pages(tmp_path: Path):
    path = tmp_path / "a.pdf"
    rows = [["Enamel defects", "", ""], *ROWS, ["", "Grease on the steel", "Wash the steel"]]
    spans = [("SPAN", (0, 0), (2, 0)), ("SPAN", (0, 3), (0, 4))]
    grid = ("GRID", (0, 0), (-1, -1), 0.5, colors.black)
    first = Table(rows, style=[grid, *spans])
    second = Table([["Chipping", "Impact in handling", "Scrap if the edge is open"]] * 2, style=[grid])
    from reportlab.platypus import PageBreak

    SimpleDocTemplate(str(path)).build([first, PageBreak(), second])
    texts, _ = read(path)
    assert texts == [
        *SAID,
        "Pinhole, cause: Grease on the steel",
        "Pinhole, action: Wash the steel",
        *["Chipping, cause: Impact in handling", "Chipping, action: Scrap if the edge is open"] * 2,
    ]


def test_signs_and_units(tmp_path: Path, sheet: canvas.Canvas):
    draw(sheet, 60, [SIGNS])
    sheet.setFont("Symbol", 11)
    sheet.save()
    assert read(tmp_path / "a.pdf")[0] == [SIGNS]


def test_scanned_pages_pictures_and_turned_text_are_named(tmp_path: Path, sheet: canvas.Canvas):
    picture = tmp_path / "scan.png"
    Image.new("L", (60, 80), 200).save(picture)
    draw(sheet, 60, [SIGNS])
    sheet.drawImage(str(picture), 60, 100, 80, 80)
    sheet.showPage()
    sheet.drawImage(str(picture), 40, 300, 500, 200)
    sheet.showPage()
    draw(sheet, 60, ["A crack is a long and dark line on the part."])
    sheet.rotate(90)
    sheet.drawString(200, -500, "Cracks above 2 mm are rejected.")
    sheet.save()
    texts, reader = read(tmp_path / "a.pdf")
    assert texts == [SIGNS, "A crack is a long and dark line on the part."]
    assert len(reader.problems) == 2
    assert "1 scanned page(s) were not read (page 2)" in reader.problems[0]
    assert "sideways was not read (page 3)" in reader.problems[1]
    assert "1 picture(s) were not read" in reader.notes[0]


def test_what_is_struck_through_is_left_out_and_said(sheet: canvas.Canvas, tmp_path: Path) -> None:
    draw(
        sheet,
        50,
        [
            "Cracks of any length are accepted.",
            "A burr wider than 0.3 0.5 mm is a reason to reject.",
            "A dent is normal.",
        ],
    )
    sheet.line(50, 743, 300, 743)
    start, width = (sheet.stringWidth(text, "Helvetica", 12) for text in ("A burr wider than ", "0.3"))
    sheet.rect(50 + start, 729, width, 0.6, fill=1, stroke=0)
    sheet.line(50, 710, 140, 710)  # underlined
    sheet.save()
    sentences, reader = read(tmp_path / "a.pdf")
    assert sentences == ["A burr wider than 0.5 mm is a reason to reject.", "A dent is normal."]
    assert "32 struck-through character(s) were not read (page 1)" in reader.notes[0]


def test_a_page_that_unpacks_to_gigabytes_is_refused_and_the_others_are_read(
    tmp_path: Path, sheet: canvas.Canvas
) -> None:
    sheet.setPageCompression(0)
    sheet.drawString(60, 740, "A crack at the rim is a reason to reject the bottle.")
    sheet.showPage()
    sheet.drawString(60, 740, "x" * 300)  # room for what replaces it
    sheet.save()
    path = tmp_path / "a.pdf"
    start, _, after = path.read_bytes().rpartition(b"stream\n")[0].rpartition(b"/Length ")
    old = path.read_bytes()[len(start) :]
    length = int(after.split()[0])
    bomb = zlib.compress(zlib.compress(bytes(200 * 2**20), 9), 9)
    _, body = old.split(b"stream\n", 1)
    body = bomb + body[length:]
    path.write_bytes(start + b"/Filter [/FlateDecode /FlateDecode] /Length %d >>\nstream\n" % len(bomb) + body)
    assert path.stat().st_size < 20_000
    sentences, reader = read(path)
    assert sentences == ["A crack at the rim is a reason to reject the bottle."]
    assert "page 2 cannot be read (A stream in the PDF unpacks to more than 32 MB" in reader.problems[0]


def test_letters_printed_twice_to_look_bold_are_read_once(tmp_path: Path, sheet: canvas.Canvas):
    for line, step in (("A crack at the rill is 11 mm long.", 0), ("A dent of 0.55 mm is normal.", 0.3)):
        at = 60.0
        for letter in line:
            sheet.drawString(at, 740 - 100 * step, letter)
            sheet.drawString(at + step, 740 - 100 * step, letter)
            at += sheet.stringWidth(letter)
    sheet.save()
    assert read(tmp_path / "a.pdf")[0] == ["A crack at the rill is 11 mm long.", "A dent of 0.55 mm is normal."]


def test_bold_letters_in_a_ruled_table_are_read_once(tmp_path: Path):
    def twice(sheet: canvas.Canvas, _: object) -> None:
        plain = sheet.drawString
        sheet.drawString = lambda x, y, text, **more: (plain(x, y, text, **more), plain(x + 0.3, y, text, **more))

    path = tmp_path / "a.pdf"
    grid = Table(ROWS, style=[("GRID", (0, 0), (-1, -1), 0.5, colors.black)])
    SimpleDocTemplate(str(path)).build([grid], onFirstPage=twice)
    assert read(path)[0] == SAID


def nested_forms(path: Path, sentence: str, depth: int, width: int) -> None:
    """A first page with a sentence, and a second whose form calls a form `width` times, and so on `depth` times."""
    sheet = canvas.Canvas(str(path), pagesize=A4)
    sheet.drawString(60, 740, sentence)
    sheet.showPage()
    for level in range(depth):
        sheet.beginForm(f"f{level}")
        sheet.drawString(60, 740, sentence) if level == 0 else [sheet.doForm(f"f{level - 1}") for _ in range(width)]
        sheet.endForm()
    sheet.doForm(f"f{depth - 1}")
    sheet.showPage()
    sheet.drawString(60, 740, sentence)
    sheet.save()


def test_forms_that_call_forms_a_billion_times_are_refused_at_once(tmp_path: Path):
    crack = "A crack at the rim is a reason to reject the bottle."
    nested_forms(tmp_path / "a.pdf", crack, depth=10, width=10)
    began = time.process_time()
    sentences, reader = read(tmp_path / "a.pdf")
    assert time.process_time() - began < 60
    assert sentences == [crack, crack]
    assert "page 2 cannot be read (it draws more than 200,000 characters" in reader.problems[0]


def test_forms_that_draw_nothing_end_too(tmp_path: Path):
    nested_forms(tmp_path / "a.pdf", " ", depth=8, width=10)
    reader = reader_for(tmp_path / "a.pdf")
    assert reader.load_data(tmp_path / "a.pdf") == []
    assert "page 2 of 3 and those after it cannot be read (its drawings repeat one another" in reader.problems[0]


def test_a_drawing_of_a_thousand_labels_is_read(tmp_path: Path, sheet: canvas.Canvas):
    for number in range(1000):
        sheet.drawString(20 + 110 * (number % 5), 820 - 4 * (number // 5), f"label {number}")
    sheet.save()
    began = time.process_time()
    text = " ".join(document.text for document in reader_for(tmp_path / "a.pdf").load_data(tmp_path / "a.pdf"))
    assert time.process_time() - began < 30
    assert all(f"label {number}" in text for number in range(1000))


def test_graph_paper_is_no_table_and_its_text_is_read(tmp_path: Path, sheet: canvas.Canvas):
    for step in range(150):
        sheet.line(20 + 3.6 * step, 20, 20 + 3.6 * step, 800)
        sheet.line(20, 20 + 5.2 * step, 560, 20 + 5.2 * step)
    sheet.setFont("Helvetica", 4)
    sheet.drawString(60, 20.8 + 5.2 * 100, "A crack at the rim is a reason to reject the bottle.")
    sheet.save()
    sentences, reader = read(tmp_path / "a.pdf")
    assert sentences == ["A crack at the rim is a reason to reject the bottle."]
    assert "a dense grid was read as text and not as a table (page 1)" in reader.notes[0]


def chapter(
    sheet: canvas.Canvas, top: float, title: str, size: float, lines: Sequence[str], bold: bool = False
) -> float:
    """Draws a title and the text below it; the height at which the next one begins."""
    sheet.setFont("Helvetica-Bold" if bold else "Helvetica", size)
    for line in title.split("\n"):
        sheet.drawString(60, top, line)
        top -= 1.2 * size
    sheet.setFont("Helvetica", 11)
    draw(sheet, 60, lines, top - 12)
    return top - 14 * len(lines) - 40


def headings_of(path: Path) -> dict[str, list[str]]:
    nodes = SentenceParser().get_nodes_from_documents(reader_for(path).load_data(path))
    return {node.get_content(): node.metadata["headings"] for node in nodes}


def test_titles_stand_above_one_another_and_hold_on_the_next_page(tmp_path: Path, sheet: canvas.Canvas):
    title = "Pump covers of plant 2,\ndefect handbook"
    top = chapter(sheet, 760, title, 22, ["It is for the inspectors of line 4."])
    top = chapter(sheet, top, "1 Cold shut", 15, ["A cold shut looks like a thin curved line."])
    top = chapter(sheet, top, "Limits", 11, ["None is allowed on the sealing face."], bold=True)
    sheet.showPage()
    chapter(sheet, 760, "", 11, ["One on a rib may stay."])
    chapter(sheet, 600, "2 Porosity", 15, ["Porosity lets coolant leak out."])
    sheet.save()
    book, cold = "Pump covers of plant 2, defect handbook", "1 Cold shut"
    assert headings_of(tmp_path / "a.pdf") == {
        "It is for the inspectors of line 4.": [book],
        "A cold shut looks like a thin curved line.": [book, cold],
        "None is allowed on the sealing face.": [book, cold, "Limits"],
        "One on a rib may stay.": [book, cold, "Limits"],
        "Porosity lets coolant leak out.": [book, "2 Porosity"],
    }


def test_large_type_on_every_page_and_bold_words_in_a_sentence_are_no_titles(tmp_path: Path, sheet: canvas.Canvas):
    for number, defect in enumerate(["Blisters", "Pinholes", "Runs", "Sags"], start=1):
        chapter(sheet, 800, "Uncontrolled copy", 24, [])
        top = chapter(sheet, 700, f"{number} {defect}", 15, [f"{defect} are lighter than the paint around them, and"])
        sheet.setFont("Helvetica-Bold", 11)
        draw(sheet, 60, [f"Every Single One Of The {defect}"], top + 28)
        sheet.setFont("Helvetica", 11)
        draw(sheet, 60, [f"is sanded off, {number} mm deep at most."], top + 14)
        sheet.showPage()
    sheet.save()
    said = headings_of(tmp_path / "a.pdf")
    whole = "Runs are lighter than the paint around them, and Every Single One Of The Runs is sanded off, 3 mm deep at most."
    assert said[whole] == ["3 Runs"]


def test_drawn_discs_begin_the_items_of_a_list(tmp_path: Path, sheet: canvas.Canvas):
    draw(sheet, 74, ["Pores near a thread weaken it, and a screw", "may pull out", "Pores in a rib are harmless"])
    for line in (0, 2):
        sheet.circle(64, 744 - 14 * line, 2, fill=1)
    sheet.save()
    said, _ = read(tmp_path / "a.pdf")
    assert said == ["Pores near a thread weaken it, and a screw may pull out", "Pores in a rib are harmless"]


def test_a_hyphen_at_the_end_of_a_line_stays_where_it_belongs_to_the_word(tmp_path: Path, sheet: canvas.Canvas):
    lines = [
        "Pores are seen in low-",
        "angle light, after poro-",
        "sity was found in an X-",
        "ray image, before pre-",
        "and post-weld checks by ISO 6520-",
        "1 and against over-",
        "heating.",
    ]
    draw(sheet, 60, lines)
    sheet.save()
    said, _ = read(tmp_path / "a.pdf")
    assert said == [
        "Pores are seen in low-angle light, after porosity was found in an X-ray image, before pre- and post-weld checks by "
        "ISO 6520-1 and against overheating."
    ]


def test_sub_headings_of_every_page_are_titles_where_each_defect_has_a_page(tmp_path: Path, sheet: canvas.Canvas):
    for defect in ("Blisters", "Pinholes", "Runs", "Sags"):
        top = chapter(sheet, 760, defect, 16, [])
        top = chapter(sheet, top, "Appearance", 13, [f"{defect} are lighter than the paint around them."])
        chapter(sheet, top, "Causes", 13, [f"{defect} come from paint that is too thin."])
        sheet.showPage()
    sheet.save()
    said = headings_of(tmp_path / "a.pdf")
    assert said["Runs are lighter than the paint around them."] == ["Runs", "Appearance"]
    assert said["Sags come from paint that is too thin."] == ["Sags", "Causes"]


def test_a_chapter_ends_at_the_next_number_in_whatever_type(tmp_path: Path, sheet: canvas.Canvas):
    top = chapter(sheet, 760, "3 Vacuum flask", 18, [])
    top = chapter(sheet, top, "1. Dent", 14, ["A dent bends the reflection of the lamp."])
    top = chapter(sheet, top, "2. Scratch", 14, ["A scratch shines when the lamp is moved."])
    chapter(sheet, top, "4 Stoppers", 14, ["A twisted ring shows as a wave."])
    sheet.save()
    assert headings_of(tmp_path / "a.pdf") == {
        "A dent bends the reflection of the lamp.": ["3 Vacuum flask", "1. Dent"],
        "A scratch shines when the lamp is moved.": ["3 Vacuum flask", "2. Scratch"],
        "A twisted ring shows as a wave.": ["4 Stoppers"],
    }


def test_questions_are_titles_and_warnings_captions_and_pointers_are_none(tmp_path: Path, sheet: canvas.Canvas):
    top = chapter(sheet, 790, "What is a rim chip?", 15, ["A chip breaks the ring of light."])
    for aside in ("ATTENTION", "Photo 4 Silvering fault", "Left: crumbs, right: stain", "Stain, see page 7"):
        top = chapter(sheet, top, aside, 11, [f"A chip is {len(aside)} mm wide at the most here."], bold=True)
    chapter(sheet, top, "Silvering fault.", 15, ["A dark window shows the outer wall."])
    sheet.save()
    said = headings_of(tmp_path / "a.pdf")
    assert all(
        said[f"A chip is {width} mm wide at the most here."] == ["What is a rim chip?"] for width in (9, 23, 26, 17)
    )
    assert said["A dark window shows the outer wall."] == ["Silvering fault."]


def test_a_running_head_that_names_the_chapter_is_no_title_of_what_goes_on_below_it(
    tmp_path: Path, sheet: canvas.Canvas
):
    chapter(sheet, 790, "Works manual - Glass liner", 11, [])
    chapter(sheet, 740, "Glass liner", 18, ["A dark window shows the outer wall."])
    sheet.showPage()
    chapter(sheet, 790, "Works manual - Vacuum flask", 11, [])
    draw(sheet, 60, ["Grease on the glass is the usual cause of it."], top=740)
    chapter(sheet, 640, "Vacuum flask", 18, ["A dark dot in the base plate lets air in."])
    sheet.save()
    assert headings_of(tmp_path / "a.pdf")["Grease on the glass is the usual cause of it."] == ["Glass liner"]


def test_a_bold_sentence_without_a_full_stop_is_no_title(tmp_path: Path, sheet: canvas.Canvas):
    top = chapter(sheet, 790, "Rim chip", 15, ["A chip breaks the ring of light."])
    top = chapter(sheet, top, "All rim chips on the pouring edge are scrapped", 11, ["A chip is sharp."], bold=True)
    chapter(sheet, top, "Silvering fault", 11, ["A dark window shows the outer wall."], bold=True)
    sheet.save()
    said = headings_of(tmp_path / "a.pdf")
    assert said["A chip is sharp."] == ["Rim chip"]
    assert said["A dark window shows the outer wall."] == ["Rim chip", "Silvering fault"]
