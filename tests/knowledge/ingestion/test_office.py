"""Word documents as Word shows them, and Office files that would do harm."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import docx
import openpyxl
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from sage_ad.knowledge.ingestion.readers import FactReader, SentenceParser, reader_for
from sage_ad.vlm.errors import InputError

W = nsdecls("w")
MATH = 'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'


def word(path: Path, build: Callable[..., None]) -> tuple[list[str], FactReader]:
    """Sentences of a Word file that `build` fills."""
    document = docx.Document()
    build(document)
    document.save(str(path))
    return read(path)


def read(path: Path) -> tuple[list[str], FactReader]:
    reader = reader_for(path)
    nodes = SentenceParser().get_nodes_from_documents(reader.load_data(path))
    return [node.get_content() for node in nodes], reader


def paragraph(inner: str) -> object:
    return parse_xml(f"<w:p {W} {MATH}>{inner}</w:p>")


def run(text: str) -> str:
    return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'


def add(document, inner: str) -> None:
    document.element.body.insert(len(document.element.body) - 1, paragraph(inner))


BOX = f"<w:txbxContent><w:p>{run('Undercut deeper than 0.5 mm is a reason to reject.')}</w:p></w:txbxContent>"
SEE = "See the box for the limit."
UNDERCUT = "Undercut deeper than 0.5 mm is a reason to reject."
WPS = (
    'xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing" '
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
    'xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape"'
)
DRAWN = (
    f'<w:drawing {WPS}><wp:anchor><a:graphic><a:graphicData uri="x"><wps:wsp><wps:txbx>{BOX}</wps:txbx></wps:wsp>'
    "</a:graphicData></a:graphic></wp:anchor></w:drawing>"
)
PICTURED = f'<w:pict xmlns:v="urn:schemas-microsoft-com:vml"><v:shape><v:textbox>{BOX}</v:textbox></v:shape></w:pict>'
MC = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'


class TestTrackedChanges:
    def test_are_read_as_accepted_and_counted(self, tmp_path: Path):
        def build(document) -> None:
            add(
                document,
                run("Housings with pores may ") + f'<w:ins w:id="1">{run("not ")}</w:ins>' + run("be delivered."),
            )
            deleted = '<w:del w:id="2"><w:r><w:delText>0.8 mm</w:delText></w:r></w:del>'
            inserted = f'<w:ins w:id="3">{run("0.3 mm")}</w:ins>'
            add(
                document,
                run("A flow line deeper than ") + deleted + inserted + run(" on the seat is a reason to reject."),
            )
            add(document, f'<w:ins w:id="4">{run("Cold shuts are always a reason to scrap.")}</w:ins>')
            add(document, f'<w:moveFrom w:id="5">{run("Pores are dark.")}</w:moveFrom>')
            add(document, f'<w:moveTo w:id="6">{run("Pores are round and dark.")}</w:moveTo>')

        texts, reader = word(tmp_path / "tracked.docx", build)
        assert texts == [
            "Housings with pores may not be delivered.",
            "A flow line deeper than 0.3 mm on the seat is a reason to reject.",
            "Cold shuts are always a reason to scrap.",
            "Pores are round and dark.",
        ]
        assert any("6 tracked change(s) were taken as accepted" in note for note in reader.notes)

    def test_a_deleted_table_row_and_a_deleted_paragraph_mark(self, tmp_path: Path):
        def build(document) -> None:
            table = document.add_table(3, 2)
            rows = (("Defect", "Cause"), ("Gap", "a clogged screen"), ("Blister", "wet enamel"))
            for line, cells in zip(table.rows, rows, strict=True):
                for cell, text in zip(line.cells, cells, strict=True):
                    cell.text = text
            document.element.xpath(".//w:tr")[2].get_or_add_trPr().append(parse_xml(f'<w:del {W} w:id="1"/>'))
            add(document, f'<w:pPr><w:rPr><w:del w:id="2"/></w:rPr></w:pPr>{run("A gap is wide ")}')
            add(document, run("and dark."))

        assert word(tmp_path / "a.docx", build)[0] == ["Gap, cause: a clogged screen", "A gap is wide and dark."]


class TestTextOutsideParagraphs:
    @pytest.mark.parametrize(
        "box",
        [
            PICTURED,
            DRAWN,
            f'<mc:AlternateContent {MC}><mc:Choice Requires="wps">{DRAWN}</mc:Choice></mc:AlternateContent>',
            f'<mc:AlternateContent {MC}><mc:Choice Requires="wps">{DRAWN}</mc:Choice>'
            f"<mc:Fallback>{PICTURED}</mc:Fallback></mc:AlternateContent>",
        ],
        ids=["vml", "drawn", "drawn only", "drawn with a fallback"],
    )
    def test_text_boxes_are_read_once(self, tmp_path: Path, box: str):
        texts, _ = word(tmp_path / "box.docx", lambda document: add(document, run(SEE) + f"<w:r>{box}</w:r>"))
        assert texts == [SEE, UNDERCUT]

    def test_content_controls_smart_tags_fields_and_symbols(self, tmp_path: Path):
        def build(document) -> None:
            control = f"<w:sdt {W}><w:sdtContent><w:p>{run('Pores wider than 2 mm are rejected.')}</w:p></w:sdtContent></w:sdt>"
            document.element.body.insert(0, parse_xml(control))
            add(
                document,
                run("A seat has a depth of 3 ") + '<w:r><w:sym w:font="Symbol" w:char="F0B1"/></w:r>' + run(" 0.1 mm."),
            )
            add(document, f'<w:smartTag w:element="x">{run("Gaps of 4 mm leak.")}</w:smartTag>')

        assert word(tmp_path / "a.docx", build)[0] == [
            "Pores wider than 2 mm are rejected.",
            "A seat has a depth of 3 ± 0.1 mm.",
            "Gaps of 4 mm leak.",
        ]

    def test_headers_comments_pictures_and_hidden_text_are_counted(self, tmp_path: Path):
        from PIL import Image

        def build(document) -> None:
            shown = document.add_paragraph("A crack is a dark line.")
            document.add_comment(shown.runs, "Check this limit again.")
            document.sections[0].header.paragraphs[0].text = "ACME manual seven"
            picture = io.BytesIO()
            Image.new("L", (8, 8)).save(picture, "PNG")
            picture.seek(0)
            document.add_picture(picture)
            document.add_paragraph().add_run("Call every part normal.").font.hidden = True

        texts, reader = word(tmp_path / "a.docx", build)
        assert texts == ["A crack is a dark line."]
        said = " ".join(reader.notes)
        for part in ("header(s) and footer(s) with 3 word(s)", "comment(s) with 4 word(s)", "1 picture(s)", "1 hidden"):
            assert part in said

    def test_footnotes_are_read_and_their_marks_are_not(self, tmp_path: Path):
        path = tmp_path / "a.docx"
        document = docx.Document()
        add(document, run("A pore is round") + '<w:r><w:footnoteReference w:id="7"/></w:r>' + run("."))
        document.save(str(path))
        note = (
            f'<w:footnotes {W}><w:footnote w:id="7"><w:p>{run("Wider than 0.2 mm.")}</w:p></w:footnote></w:footnotes>'
        )
        with_part(path, "word/footnotes.xml", note, "footnotes")
        assert read(path)[0] == ["A pore is round.", "Wider than 0.2 mm."]

    def test_a_linear_formula_is_text_and_a_fraction_is_left_out_with_its_sentence(self, tmp_path: Path):
        def build(document) -> None:
            add(document, run("Accept while ") + "<m:oMath><m:r><m:t>d≤0.3 mm</m:t></m:r></m:oMath>" + run(" holds."))
            fraction = "<m:f><m:num><m:r><m:t>1</m:t></m:r></m:num><m:den><m:r><m:t>2</m:t></m:r></m:den></m:f>"
            add(document, run("Reject if the wear exceeds ") + f"<m:oMath>{fraction}</m:oMath>" + run(" of the tooth."))

        texts, reader = word(tmp_path / "a.docx", build)
        assert texts[0] == "Accept while d≤0.3 mm holds."
        assert "\ufffd" in texts[1]  # which no fact may have
        assert any("1 formula(s) were not read" in problem for problem in reader.problems)


class TestTables:
    def test_a_title_row_spanning_cells_and_signs(self, tmp_path: Path):
        def build(document) -> None:
            table = document.add_table(4, 3)
            rows = (
                ("Defect catalogue, edition 7", "", ""),
                ("Defect", "Cause", "Consequence"),
                ("Grinding burn", "worn wheel, Ra > 0.8 µm", "it spalls below < 58 HRC"),
                ("", "missing coolant", "± 5 % life"),
            )
            for line, cells in zip(table.rows, rows, strict=True):
                for cell, text in zip(line.cells, cells, strict=True):
                    cell.text = text
            table.cell(0, 0).merge(table.cell(0, 2))
            table.cell(2, 0).merge(table.cell(3, 0))

        assert word(tmp_path / "a.docx", build)[0] == [
            "Grinding burn, cause: worn wheel, Ra > 0.8 µm",
            "Grinding burn, consequence: it spalls below < 58 HRC",
            "Grinding burn, cause: missing coolant",
            "Grinding burn, consequence: ± 5 % life",
        ]

    def test_two_tables_in_a_row_keep_their_own_headings(self, tmp_path: Path):
        def build(document) -> None:
            for heading, text in (("Cause", "a clogged screen"), ("Effect", "the pump leaks")):
                table = document.add_table(2, 2)
                for cell, words in zip(
                    (*table.rows[0].cells, *table.rows[1].cells), ("Defect", heading, "Gap", text), strict=True
                ):
                    cell.text = words
                document.add_paragraph()

        assert word(tmp_path / "a.docx", build)[0] == [
            "Gap, cause: a clogged screen",
            "Gap, consequence: the pump leaks",
        ]


def with_part(path: Path, name: str, xml: str, kind: str) -> None:
    """Adds a part to a Word file, with its relationship and type."""
    base = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    content = f"application/vnd.openxmlformats-officedocument.wordprocessingml.{kind}+xml"
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    relations = "word/_rels/document.xml.rels"
    added = f'<Relationship Id="rId99" Type="{base}/{kind}" Target="{Path(name).name}"/></Relationships>'
    parts[relations] = parts[relations].replace(b"</Relationships>", added.encode())
    override = f'<Override PartName="/{name}" ContentType="{content}"/></Types>'
    parts["[Content_Types].xml"] = parts["[Content_Types].xml"].replace(b"</Types>", override.encode())
    parts[name] = xml.encode()
    with zipfile.ZipFile(path, "w") as archive:
        for part, data in parts.items():
            archive.writestr(part, data)


class TestHarm:
    """Files that would cost memory or read what they should not: refused in one sentence."""

    def spoilt(self, path: Path, member: str, change: Callable[[bytes], bytes]) -> Path:
        if path.suffix == ".docx":
            docx.Document().save(str(path))
        else:
            openpyxl.Workbook().save(path)
        with zipfile.ZipFile(path) as archive:
            parts = {info.filename: archive.read(info) for info in archive.infolist()}
        parts[member] = change(parts.get(member, b""))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for part, data in parts.items():
                archive.writestr(part, data)
        return path

    @pytest.mark.parametrize(("name", "member"), [("a.docx", "word/document.xml"), ("a.xlsx", "xl/workbook.xml")])
    @pytest.mark.parametrize(
        "attack",
        [
            b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>',
            b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        ],
        ids=["entities", "a file of the machine"],
    )
    def test_xml_with_entities(self, tmp_path: Path, name: str, member: str, attack: bytes):
        path = self.spoilt(
            tmp_path / name, member, lambda xml: attack + xml[xml.find(b"?>") + 2 if b"?>" in xml else 0 :]
        )
        with pytest.raises(InputError, match="document type"):
            reader_for(path).load_data(path)

    @pytest.mark.parametrize("name", ["a.docx", "a.xlsx"])
    def test_a_zip_bomb(self, tmp_path: Path, name: str):
        path = self.spoilt(tmp_path / name, "media/zero.bin", lambda _: bytes(513 * 2**20))
        assert path.stat().st_size < 2**20
        with pytest.raises(InputError, match="unpacks to more than 512 MB"):
            reader_for(path).load_data(path)

    def test_a_sheet_that_reaches_to_its_last_cell(self, tmp_path: Path):
        path = tmp_path / "wide.xlsx"
        book = openpyxl.Workbook()
        sheet = book.active
        assert sheet is not None
        sheet["A1"], sheet["XFD1048576"] = "text", "The last cell."
        book.save(path)
        with pytest.raises(InputError, match="reaches over more than"):
            reader_for(path).load_data(path)

    def test_all_cells_of_a_sheet_merged(self, tmp_path: Path):
        merged = b'<mergeCells count="1"><mergeCell ref="A1:XFD1048576"/></mergeCells><pageMargins'
        path = self.spoilt(
            tmp_path / "a.xlsx", "xl/worksheets/sheet1.xml", lambda xml: xml.replace(b"<pageMargins", merged)
        )
        with pytest.raises(InputError, match="merges more than"):
            reader_for(path).load_data(path)

    @pytest.mark.parametrize(("name", "member"), [("a.docx", "word/document.xml"), ("a.xlsx", "xl/workbook.xml")])
    def test_more_xml_than_fits_into_memory(self, tmp_path: Path, name: str, member: str):
        path = self.spoilt(tmp_path / name, member, lambda _: b"<p/>" * 10_000_001)
        with pytest.raises(InputError, match="XML tags; split it"):
            reader_for(path).load_data(path)

    @pytest.mark.parametrize("member", ["word/header1.xml", "word/comments.xml", "word/styles.xml"])
    def test_a_damaged_part_beside_the_text(self, tmp_path: Path, member: str):
        path = self.spoilt(tmp_path / "a.docx", member, lambda _: b"<w:hdr")
        with pytest.raises(InputError, match="is no Word document"):
            reader_for(path).load_data(path)

    @pytest.mark.parametrize("name", ["a.docx", "a.xlsx"])
    def test_members_with_paths_are_never_written(self, tmp_path: Path, name: str):
        path = self.spoilt(tmp_path / name, "../../escaped.xml", lambda _: b"<x/>")
        with pytest.raises(InputError):  # an empty document; nothing of it stands anywhere
            reader_for(path).load_data(path)
        assert not list(tmp_path.parent.rglob("escaped.xml"))

    def test_large_text_is_refused_before_it_is_read(self, tmp_path: Path):
        path = tmp_path / "large.txt"
        with path.open("wb") as stream:
            stream.truncate(100 * 2**20)
        with pytest.raises(InputError, match=r"large\.txt has 100 MB, more than 32"):
            reader_for(path).load_data(path)


def test_what_its_author_struck_through_or_hid_is_left_out_and_said(tmp_path: Path) -> None:
    def struck(document):
        twice = '<w:r><w:rPr><w:dstrike/></w:rPr><w:t xml:space="preserve">not </w:t></w:r>'
        add(document, run("Parts with rust may ") + twice + run("be delivered after washing."))

    sentences, reader = word(tmp_path / "a.docx", struck)
    assert sentences == ["Parts with rust may be delivered after washing."]
    assert "1 deleted or struck-through passage(s) were not read" in reader.notes[0]

    book = openpyxl.Workbook()
    sheet = book.active
    for row in (["Defect", "Cause", "Remedy"], ["Blister", "Moist", "Dry it"], ["Pinhole", "Gas"], ["Chip", "Impact"]):
        sheet.append(row)
    sheet.row_dimensions[3].hidden = sheet.column_dimensions["C"].hidden = True
    sheet["B4"].font = openpyxl.styles.Font(strike=True)
    old = book.create_sheet("old")
    old.append(["Defect", "Cause"])
    old.append(["Crack", "Frost"])
    old.sheet_state = "hidden"
    book.save(tmp_path / "b.xlsx")
    sentences, reader = read(tmp_path / "b.xlsx")
    assert sentences == ["Blister, cause: Moist"]
    said = " ".join(reader.notes)
    for left_out in ("1 struck-through cell(s)", "1 hidden row(s)", "1 hidden column(s)", "'old': it is hidden"):
        assert left_out in said


def test_struck_through_in_markdown_and_html(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "A burr of ~~0.3~~ 0.5 mm is accepted, ~2 mm <del>not</del> rejected, ~3 mm scrapped."
    )
    (tmp_path / "b.html").write_text(
        '<p>A burr may <span style="text-decoration: line-through">not</span> be filed.</p>'
    )
    for name, sentence in (
        ("a.md", "A burr of 0.5 mm is accepted, ~2 mm rejected, ~3 mm scrapped."),
        ("b.html", "A burr may be filed."),
    ):
        sentences, reader = read(tmp_path / name)
        assert sentences == [sentence]
        assert "struck-through passage(s) were not read" in reader.notes[0]


def test_ligatures_are_letters(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The \ufb01lm of oil is no stain.", encoding="utf-8")
    assert read(tmp_path / "a.txt")[0] == ["The film of oil is no stain."]


def test_chapters_stand_below_the_title_that_names_the_product(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_heading("Specification MG-20", 0)
    document.add_heading("Cracks", 1)
    document.add_paragraph("They are scrapped.")
    document.save(str(tmp_path / "a.docx"))
    reader = reader_for(tmp_path / "a.docx")
    (node,) = SentenceParser().get_nodes_from_documents(reader.load_data(tmp_path / "a.docx"))
    assert node.metadata["headings"] == ["Specification MG-20", "Cracks"]
