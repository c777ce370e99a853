"""Tables: headings found anywhere, cells in their columns, nothing lost without a word; CSV and Excel files as they come."""

from __future__ import annotations

import json
from pathlib import Path

import openpyxl
import pytest

from sage_ad.knowledge.ingestion.readers import SentenceParser, reader_for
from sage_ad.knowledge.ingestion.tables import Table, read_table, table_cells, table_lines
from sage_ad.vlm.errors import InputError


def texts(path: Path) -> list[str]:
    return [document.text for document in reader_for(path).load_data(path)]


def sayings(rows: list[list], **options) -> list[str]:
    table = read_table(rows, **options)
    assert isinstance(table, Table)
    return [statement.text for statement in table.statements]


CATALOGUE = ["defect", "cause", "effect"]
JOINT = ["Cold solder joint", "Iron too cold or dirty pad", "Open circuit under vibration"]
SAID = [
    "Cold solder joint, cause: Iron too cold or dirty pad",
    "Cold solder joint, consequence: Open circuit under vibration",
]


class TestRows:
    def test_empty_names_repeat_the_row_above_and_this_is_said(self):
        table = read_table(
            [
                ["product", "defect", "cause"],
                ["connector", "bent pin", "pushed in at an angle"],
                ["", "", "worn insertion tool"],
                ["", "missing seal", "seal feeder empty"],
                ["relay", "", "wrong coil wound on the bobbin"],
            ]
        )
        assert table is not None
        assert [(s.products, s.defects) for s in table.statements] == [
            (("connector",), ("bent pin",)),
            (("connector",), ("bent pin",)),
            (("connector",), ("missing seal",)),
            (("relay",), ()),  # a new product does not inherit the old one's defect
        ]
        assert table.notes == [
            "2 empty cell(s) of column 'product' repeat the cell above.",
            "1 empty cell(s) of column 'defect' repeat the cell above.",
        ]

    def test_a_sentence_a_row_inherits_nothing(self):
        table = read_table([["product", "text"], ["pump", "Pores leak."], ["", "Cracks are dark."]])
        assert table is not None
        assert [s.products for s in table.statements] == [("pump",), ()]

    @pytest.mark.parametrize("mark", ['"', "''", "〃", "ditto", "do."])
    def test_ditto_repeats_the_cell_above(self, mark: str):
        rows = [CATALOGUE, JOINT, ["Solder bridge", mark, "Short circuit"]]
        assert "Solder bridge, cause: Iron too cold or dirty pad" in sayings(rows)

    @pytest.mark.parametrize("nothing", ["", "-", "n/a", "—", "None"])
    def test_a_cell_that_says_nothing_is_no_statement(self, nothing: str):
        assert sayings([CATALOGUE, ["Solder bridge", nothing, "Short circuit"]]) == [
            "Solder bridge, consequence: Short circuit"
        ]

    def test_a_cell_over_two_columns_answers_neither_question(self):
        table = read_table([CATALOGUE, ["Blister", "moisture below the enamel, which bursts", None]])
        assert table is not None
        (statement,) = table.statements
        assert (statement.kind, statement.text) == (None, "Blister: moisture below the enamel, which bursts")

    def test_title_rows_preambles_and_repeated_headings_are_no_rows(self):
        rows = [["Defects, edition 7", None, None], ["", "", ""], CATALOGUE, JOINT, CATALOGUE, ["Annex", None, None]]
        assert sayings(rows) == SAID

    def test_headings_in_the_first_column(self):
        assert sayings([list(pair) for pair in zip(CATALOGUE, JOINT, strict=True)]) == SAID

    def test_two_columns_of_one_name_are_both_read(self):
        rows = [["defect", "cause", "cause"], ["Blister", "wet enamel", "gas in the steel"]]
        assert sayings(rows) == ["Blister, cause: wet enamel", "Blister, cause: gas in the steel"]

    def test_unknown_columns_are_read_under_their_heading_and_ratings_are_named(self):
        table = read_table(
            [
                ["No.", "Defect", "Cause", "Max. length mm", "Disposition", "RPN"],
                ["1", "Scratch", "swarf in the clamp", "5", "second choice", "120"],
            ]
        )
        assert table is not None
        assert [(s.text, s.kind, s.plain) for s in table.statements] == [
            ("Scratch, max. length mm: 5, disposition: second choice", "consequence", True),
            ("Scratch, cause: swarf in the clamp", "cause", True),
        ]
        assert table.notes == ["column(s) 'No.', 'RPN' (ratings, dates, numbers) were not read."]

    def test_severity_and_action_stand_under_their_own_words(self):
        table = read_table(
            [
                ["Defect", "Severity", "Recommended action(s)"],
                ["Scratch", "functional, may leak", "Rework by polishing"],
                ["Pore", "8", "Scrap the part"],
            ]
        )
        assert table is not None
        assert [(s.text, s.kind) for s in table.statements] == [
            ("Scratch, severity: functional, may leak", "consequence"),
            ("Scratch, action: Rework by polishing", "inspection"),
            ("Pore, action: Scrap the part", "inspection"),
        ]
        assert table.notes == ["column(s) 'Severity' (ratings, dates, numbers) were not read."]

    def test_a_disposition_table_is_read_as_rows_with_their_headings(self):
        rows = [["Size", "Disposition"], ["5 mm", "second choice"], ["> 8 mm", "scrap"]]
        assert sayings(rows, about="Knots") == [
            "Knots: Size: 5 mm, disposition: second choice",
            "Knots: Size: > 8 mm, disposition: scrap",
        ]

    def test_a_row_begins_with_what_it_is_about_and_not_with_numbers_and_headings(self):
        rows = [["Pos.", "Defect", "Size", "Disposition"], ["1", "gas pore", "> 1 mm", "scrap"]]
        assert sayings(rows, about="6 Disposition") == ["Gas pore, size: > 1 mm, disposition: scrap"]
        assert sayings(rows, about="6.2 Pump covers") == ["Pump covers: Gas pore, size: > 1 mm, disposition: scrap"]

    def test_a_remark_beside_a_disposition_is_a_part_of_the_row(self):
        rows = [
            ["Product", "Defect", "Size", "Disposition", "Remark"],
            ["all", "chip", "> 1 mm", "scrap", "sort the tray"],
        ]
        table = read_table(rows)
        assert table is not None
        assert [(s.text, s.products) for s in table.statements] == [
            ("Chip, size: > 1 mm, disposition: scrap, remark: sort the tray", ())
        ]

    def test_rows_about_one_defect_say_for_which_case_they_hold(self):
        rows = [["Defect", "Zone", "Cause", "Action"], ["Chip", "A", "belt", "scrap"], ["", "B", "tray", "accept"]]
        assert sayings(rows) == [
            "Chip, zone: A, cause: belt",
            "Chip, zone: A, action: scrap",
            "Chip, zone: B, cause: tray",
            "Chip, zone: B, action: accept",
        ]
        rows = [["Defect", "Class", "Limit"], ["Chip", "A", "0.8 mm"], ["Chip", "B", "1.5 mm"]]
        assert sayings(rows) == ["Chip, class: A, limit: 0.8 mm", "Chip, class: B, limit: 1.5 mm"]

    def test_an_action_holds_for_the_size_beside_it(self):
        rows = [["Defect", "Size", "Action"], ["Pore", "> 1 mm", "scrap"]]
        assert "Pore, size: > 1 mm, action: scrap" in sayings(rows)

    def test_the_unit_of_a_heading_stands_with_its_numbers(self):
        rows = [["Defect", "Size [mm]", "Disposition"], ["Pore", "< 0.8", "accept"], ["Chip", "any", "scrap"]]
        assert sayings(rows) == ["Pore, size: < 0.8 mm, disposition: accept", "Chip, size: any, disposition: scrap"]

    def test_the_unit_of_a_heading_of_two_lines(self):
        rows = [["Defect", "Size (mm)", None], ["Defect", "Front", "Back"], ["Pore", "1", "2"]]
        assert sayings(rows) == ["Pore, size, front: 1 mm", "Pore, size, back: 2 mm"]

    def test_a_number_below_a_title_of_limits_is_one(self):
        rows = [["Defect", "Back", "Front"], ["Pore", "≤ 1 mm", "none"], ["Chip", "≤ 2 mm", "≤ 1 mm"]]
        assert sayings(rows, about="3. Acceptance limits")[:2] == [
            "Acceptance limits: Pore, back: ≤ 1 mm",
            "Acceptance limits: Pore, front: none",
        ]

    def test_headings_of_two_lines_are_joined_and_none_is_a_limit(self):
        rows = [
            ["Defect", "Pole face", None, "Back"],
            ["Defect", "Class A", "MG-21", ""],
            ["Chip", "none", "≤ 0.8 mm", "n/a"],
            ["Pore", "≤ 0.3 mm", "", "≤ 1 mm"],
        ]
        assert sayings(rows) == [
            "Chip, pole face, class A: none",
            "Chip, pole face, MG-21: ≤ 0.8 mm",
            "Pore, pole face, class A: ≤ 0.3 mm",
            "Pore, back: ≤ 1 mm",
        ]

    def test_more_cells_than_headings_is_a_problem_and_no_shifted_row(self):
        table = read_table([CATALOGUE, ["Blister", "wet enamel", " gas", "peeling"], JOINT])
        assert table is not None
        assert [s.text for s in table.statements] == SAID
        assert table.problems[0].startswith("row 1 has more cells than there are headings")

    @pytest.mark.parametrize(
        ("heading", "kind"),
        [
            ("Potential Effect(s) of Failure", "consequence"),
            ("Potential Cause(s)/Mechanism(s) of Failure", "cause"),
            ("Current Process Controls Detection", "inspection"),
            ("Recommended Action(s)", "inspection"),
            ("Failure Cause (FC)", "cause"),
            ("Failure Effect (FE)", "consequence"),
        ],
    )
    def test_headings_of_fmea_forms(self, heading: str, kind: str):
        table = read_table([["Potential Failure Mode", heading], ["Solder bridge", "some words here"]])
        assert table is not None
        assert [(s.kind, s.defects) for s in table.statements] == [(kind, ("Solder bridge",))]

    def test_lines_of_text_and_back(self):
        rows = [["a | b", None, ""], ["", "c\nd", "\\"]]
        assert [table_cells(line, literal=True) for line in table_lines(rows).split("\n")] == [
            ["a | b", None, ""],
            ["", "c d", "\\"],
        ]


class TestMarkdown:
    def rows(self, tmp_path: Path, text: str) -> tuple[list[str], SentenceParser]:
        path = tmp_path / "a.md"
        path.write_text(text, encoding="utf-8")
        parser = SentenceParser()
        return [
            node.get_content() for node in parser.get_nodes_from_documents(reader_for(path).load_data(path))
        ], parser

    def test_an_empty_first_cell_keeps_the_columns(self, tmp_path: Path):
        text = "| Defect | Cause |\n|---|---|\n| Gap | a clogged screen |\n| | a torn screen |\n"
        assert self.rows(tmp_path, text)[0] == ["Gap, cause: a clogged screen", "Gap, cause: a torn screen"]

    def test_bars_at_the_ends_are_not_needed_and_escaped_ones_are_text(self, tmp_path: Path):
        text = "Defect | Cause\n--- | ---\nGap | a \\| b, clogged > 3 mm\n\nA gap is wide.\n"
        assert self.rows(tmp_path, text)[0] == ["Gap, cause: a | b, clogged > 3 mm", "A gap is wide."]

    def test_a_table_without_known_headings_stands_below_its_title(self, tmp_path: Path):
        text = "# Knots\n\n| Size | Disposition |\n|---|---|\n| 5 mm | second choice |\n"
        assert self.rows(tmp_path, text)[0] == ["Knots: Size: 5 mm, disposition: second choice"]

    def test_a_table_in_html(self, tmp_path: Path):
        text = (
            "# Gaps\n\n<table><tr><th>Defect</th><th>Cause</th></tr>\n<tr><td rowspan='2'>Gap</td><td>a *torn* screen</td></tr>"
            "\n<tr><td>dirt &gt; 3 mm</td></tr></table>\n\nA gap is wide.\n"
        )
        assert self.rows(tmp_path, text)[0] == [
            "Gap, cause: a torn screen",
            "Gap, cause: dirt > 3 mm",
            "A gap is wide.",
        ]

    def test_a_table_of_one_row_is_named(self, tmp_path: Path):
        found, parser = self.rows(tmp_path, "# Knots\n\n| Size | Disposition |\n|---|---|\n")
        assert found == []
        assert "below 'Knots'" in parser.notes[0]


class TestCsv:
    def write(self, tmp_path: Path, rows: list[list[str]], separator: str = ";", before: str = "") -> Path:
        path = tmp_path / "fmea.csv"
        path.write_text(before + "".join(separator.join(row) + "\n" for row in rows), encoding="utf-8")
        return path

    @pytest.mark.parametrize("before", ["sep=;\n", '"sep=;"\n', "Company: ACME;;\nExported: 05.01.2026;;\n;;\n"])
    def test_excels_first_line_and_a_preamble(self, tmp_path: Path, before: str):
        assert texts(self.write(tmp_path, [CATALOGUE, JOINT], before=before)) == SAID

    def test_commas_in_the_cells_do_not_decide_the_separator(self, tmp_path: Path):
        row = ["Cold solder joint", "Iron too cold, dirty pad, or both", "Open, or loose, circuit"]
        assert texts(self.write(tmp_path, [CATALOGUE, row]))[0] == (
            "Cold solder joint, cause: Iron too cold, dirty pad, or both"
        )

    def test_utf16_without_a_mark(self, tmp_path: Path):
        for encoding in ("utf-16-le", "utf-16-be"):
            path = tmp_path / f"{encoding}.csv"
            path.write_bytes("".join("\t".join(row) + "\r\n" for row in (CATALOGUE, JOINT)).encode(encoding))
            assert texts(path) == SAID

    def test_an_aiag_form(self, tmp_path: Path):
        path = tmp_path / "aiag.csv"
        path.write_text(
            "Process Step,Potential Failure Mode,Potential Effect(s) of Failure,S,"
            "Potential Cause(s)/Mechanism(s) of Failure,O,Current Process Controls Detection,D,RPN\n"
            "Soldering,Cold solder joint,Open circuit under vibration,8,Iron too cold or dirty pad,4,Dull grey joint,5,160\n",
            encoding="utf-8",
        )
        reader = reader_for(path)
        assert [(d.text, d.metadata["kind"]) for d in reader.load_data(path)] == [
            (SAID[1], "consequence"),
            (SAID[0], "cause"),
            ("Cold solder joint, inspection: Dull grey joint", "inspection"),
        ]
        assert "'Process Step', 'S', 'O', 'D', 'RPN'" in reader.notes[0]

    def test_a_refusal_names_the_headings(self, tmp_path: Path):
        path = tmp_path / "prices.csv"
        path.write_text("width;height\n1;2\n")
        with pytest.raises(InputError, match="'width', 'height'"):
            reader_for(path).load_data(path)

    def test_a_lone_quotation_mark_swallows_no_rows(self, tmp_path: Path):
        path = tmp_path / "ditto.csv"
        path.write_text('defect,cause\ngap,a clogged screen\nblister,"\ncrack,a cold die\n')
        with pytest.raises(InputError, match=r"ditto\.csv cannot be read as a table"):
            reader_for(path).load_data(path)

    @pytest.mark.parametrize(
        ("encoding", "text"),
        [
            ("cp1251", "Трещина на поверхности детали недопустима."),
            ("cp1253", "Ρωγμές στην επιφάνεια του εξαρτήματος."),
            ("gb18030", "零件表面不允许有裂纹。"),
            ("shift_jis", "部品の表面に亀裂があってはならない。"),
            ("cp1250", "Pęknięcia na powierzchni są niedopuszczalne, więc część należy odrzucić."),
            ("cp850", "A bore of 5 µm at 20 °C with ± 0.1 mm is normal."),
        ],
    )
    def test_another_encoding_is_refused_and_no_garbled_fact(self, tmp_path: Path, encoding: str, text: str):
        path = tmp_path / "a.csv"
        path.write_bytes(f"text\n{text}\n".encode(encoding))
        with pytest.raises(InputError, match="save it as UTF-8"):
            reader_for(path).load_data(path)


class TestExcel:
    def write(self, path: Path, rows: list[list], **merged: str) -> openpyxl.Workbook:
        book = openpyxl.Workbook()
        sheet = book.active
        assert sheet is not None
        for row in rows:
            sheet.append(row)
        for area in merged.values():
            sheet.merge_cells(area)
        book.save(path)
        return book

    def test_title_row_merged_defect_and_signs(self, tmp_path: Path):
        path = tmp_path / "fmea.xlsx"
        rows = [
            ["Defect catalogue, edition 7", "", ""],
            ["Defect", "Cause", "Acceptance"],
            ["Grinding burn", "worn wheel, Ra > 0.8 µm", "≤ 0.2 mm ± 0.05 mm at Ø 30, 20 °C"],
            ["", "missing coolant", ""],
        ]
        self.write(path, rows, title="A1:C1", defect="A3:A4")
        reader = reader_for(path)
        documents = reader.load_data(path)
        assert [d.text for d in documents] == [
            "Grinding burn, cause: worn wheel, Ra > 0.8 µm",
            "Grinding burn, still normal: ≤ 0.2 mm ± 0.05 mm at Ø 30, 20 °C",
            "Grinding burn, cause: missing coolant",
        ]
        assert documents[0].metadata["entry"] == "sheet 'Sheet', row 1, Cause"
        assert reader.problems == []

    def test_a_number_stands_with_the_sign_and_unit_of_its_format(self, tmp_path: Path):
        path = tmp_path / "limits.xlsx"
        book = openpyxl.Workbook()
        sheet = book.active
        assert sheet is not None
        sheet.append(["defect", "cause", "max. depth"])
        for form, value in (('">"0.0" mm"', 0.5), ("0%", 0.2), ("General", 3)):
            sheet.append(["scratch", "swarf in the clamp", value])
            sheet.cell(sheet.max_row, 3).number_format = form
        book.save(path)
        assert [text.partition(", cause")[0] for text in texts(path)] == [
            "Scratch, max. depth: > 0.5 mm",
            "Scratch, max. depth: 20 %",
            "Scratch, max. depth: 3",
        ]

    def test_every_sheet_is_read_or_named_and_formulas_without_a_value_too(self, tmp_path: Path):
        path = tmp_path / "book.xlsx"
        book = openpyxl.Workbook()
        first = book.active
        assert first is not None
        for row in (CATALOGUE, JOINT, ["Blister", '=B2&"!"', ""]):
            first.append(row)
        prices = book.create_sheet("Prices")
        prices.append(["width", "height"])
        prices.append([1, 2])
        book.save(path)
        reader = reader_for(path)
        assert [d.text for d in reader.load_data(path)] == SAID
        assert any("1 formula(s) have no stored value (B3)" in problem for problem in reader.problems)
        assert any("sheet 'Prices'" in problem and "'width', 'height'" in problem for problem in reader.problems)


def test_records_inherit_nothing_and_nested_values_are_named(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps([{"defect": "gap", "cause": "a clogged screen"}, {"cause": "a cold die", "more": {"x": "y"}}])
    )
    reader = reader_for(path)
    assert [(d.text, d.metadata["defects"]) for d in reader.load_data(path)] == [
        ("Gap, cause: a clogged screen", ["gap"]),
        ("a cold die", []),
    ]
    assert "'more'" in reader.notes[0]
