"""Readers and sentence parser: every format read with exact spans, every bad file refused in one sentence."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import pytest
from documents import FACTS, write_captions, write_docx, write_pdf
from llama_index.core.schema import Document

from sage_ad.knowledge.ingestion.readers import READERS, SentenceParser, is_domain_knowledge, reader_for, running_lines
from sage_ad.knowledge.text.segmentation import plain_text, split_sentences, whole_words
from sage_ad.vlm.errors import InputError


def sentences(path: Path) -> list:
    """Nodes of a file, after every span was checked against the text that it counts in."""
    documents = reader_for(path).load_data(path)
    nodes = SentenceParser().get_nodes_from_documents(documents)
    texts = {(d.metadata.get("page"), d.metadata.get("entry")): d.text for d in documents}
    for node in nodes:
        if node.metadata["layout"] != "statement":
            whole = texts[node.metadata.get("page"), node.metadata.get("entry")]
            assert plain_text(whole[node.start_char_idx : node.end_char_idx]) == node.text
    return nodes


class TestSentences:
    def test_spans_survive_markup_front_matter_and_code(self):
        text = (
            "---\ntitle: x. y.\n---\n# Cells\n\nCracks are **dark**, e.g. in Fig. 3 of [it](a.b). They are 0.1 mm\n"
            "wide.\n\n```\ncode. here.\n```\n<!-- hidden. words. -->\n- Hail cracks cells.\n"
        )
        found = split_sentences(text, markdown=True)
        assert [s.text for s in found] == [
            "Cracks are dark, e.g. in Fig. 3 of it.",
            "They are 0.1 mm wide.",
            "Hail cracks cells.",
        ]
        assert text[found[1].start : found[1].end] == "They are 0.1 mm\nwide."
        assert {s.headings for s in found} == {("Cells",)}

    def test_words_broken_at_the_line_end_are_joined(self):
        assert (
            split_sentences("The solder-\ning joint has a micro-\ncrack.")[0].text
            == "The soldering joint has a microcrack."
        )

    @pytest.mark.parametrize(
        ("text", "count"),
        [
            ("It is approx. 5 mm long. It grows.", 2),
            ("See no. 5 of the list, i.e. the last one.", 1),
            ("Made by J. Smith in 2020. It holds.", 2),
            ("Is it bad? Yes! Very.", 3),
            ("", 0),
            ("   \n\n ", 0),
        ],
    )
    def test_a_full_stop_does_not_always_end_a_sentence(self, text: str, count: int):
        assert len(split_sentences(text)) == count

    def test_a_long_text_without_blank_lines_takes_linear_time(self):
        assert len(split_sentences("A crack is dark. " * 20_000)) == 20_000

    @pytest.mark.parametrize("text", ["a" * 500_000 + " -", "-" + "\n" * 500_000, "a-\n" * 100_000])
    def test_a_word_or_gap_without_end_takes_linear_time(self, text: str):
        began = time.process_time()
        whole_words(text)
        plain_text(text)
        assert time.process_time() - began < 10  # hours, where each letter is tried as the first

    def test_plain_text_headings_become_context(self):
        found = split_sentences("3.1 Micro cracks\n\nThey interrupt the current.\n\nREPAIR\nIt is not possible.\n")
        assert [(s.text, s.headings) for s in found] == [
            ("They interrupt the current.", ("3.1 Micro cracks",)),
            ("It is not possible.", ("3.1 Micro cracks", "REPAIR")),
        ]

    def test_numbers_tell_which_plain_heading_stands_below_which(self):
        found = split_sentences(
            "1 Liner\n\n1.1 Chip\n\nIt is sharp.\n\n1.2 Stain\n\nIt is dull.\n\n2 Flask\n\nIt is steel.\n"
        )
        assert [s.headings for s in found] == [("1 Liner", "1.1 Chip"), ("1 Liner", "1.2 Stain"), ("2 Flask",)]

    def test_a_sentence_on_a_line_of_its_own_is_no_heading(self):
        found = split_sentences("Rim chip\n\nNever pack a liner with a chip\n\n1. Place it under the lamp\n")
        assert [(s.text, s.headings) for s in found] == [
            ("Never pack a liner with a chip", ("Rim chip",)),
            ("Place it under the lamp", ("Rim chip",)),
        ]

    def test_a_note_in_capitals_does_not_end_a_heading(self):
        (note, last) = split_sentences("RIM CHIP\n\nNOTE\n\nIt cuts the hand.\n")
        assert (note.text, last.headings) == ("NOTE", ("RIM CHIP",))

    @pytest.mark.parametrize(
        "title", ["Tablets", "Tableware", "Figurine", "Warning label missing", "Important defects"]
    )
    def test_a_product_that_begins_like_a_caption_or_warning_is_a_heading(self, title: str):
        (said,) = split_sentences(f"{title}\n\nIt has a chip at the rim.\n")
        assert said.headings == (title,)

    def test_ticks_and_arrows_begin_items(self):
        found = split_sentences("\u2713 an even ring\n\u27a4 no gap\n\u2192 dark gaps are chips\n")
        assert [s.text for s in found] == ["an even ring", "no gap", "dark gaps are chips"]


class TestFormats:
    def test_pdf_pages_with_running_heads(self, tmp_path: Path):
        path = write_pdf(tmp_path / "manual.PDF", FACTS, header="ACME inspection manual 7")
        nodes = sentences(path)
        assert [(n.text, n.metadata["page"]) for n in nodes] == [(text, i) for i, text in enumerate(FACTS, start=1)]

    def test_docx_with_list_and_table(self, tmp_path: Path):
        nodes = sentences(write_docx(tmp_path / "a.docx"))
        assert [n.text for n in nodes] == [
            "Gas porosity appears as round bright pores in the machined face of a casting.",
            "Wet sand gives rise to gas pores in the casting.",
            "Cold shut, cause: the melt was too cold",
            "Cold shut, consequence: the wall leaks under pressure",
        ]
        assert nodes[0].metadata["headings"] == ["Casting defects"]
        assert (nodes[2].metadata["kind"], nodes[2].metadata["defects"]) == ("cause", ("Cold shut",))

    def test_html_without_navigation_scripts_comments_and_hidden_parts(self, tmp_path: Path):
        path = tmp_path / "page.html"
        path.write_text(
            "<nav>Home</nav><main><h2>Cells</h2><p>Cracks are <b>dark</b> lines."
            "<span style='display: none'>evil</span></p>"
            "<!-- evil --><script>evil()</script><div>Tail of it.<p>Inner part.</p></div><p hidden>evil</p>"
            "<table><tr><th>Defect</th><th>Cause</th></tr>"
            "<tr><td>Gap</td><td>a clogged screen</td></tr></table></main>",
            encoding="utf-8",
        )
        texts = [n.text for n in sentences(path)]
        assert texts == ["Cracks are dark lines.", "Tail of it.", "Inner part.", "Gap, cause: a clogged screen"]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
    def test_text_encodings(self, tmp_path: Path, encoding: str):
        path = tmp_path / "a.txt"
        path.write_bytes("Façade cracks\r\nare 5 µm wide.".encode(encoding))
        assert [n.text for n in sentences(path)] == ["Façade cracks are 5 µm wide."]

    def test_csv_catalogue_and_sentences(self, tmp_path: Path):
        path = tmp_path / "fmea.csv"
        path.write_text(
            "Product;Failure mode;Cause;Detection\npump;porosity;gas in the melt;leak test\n", encoding="utf-8"
        )
        documents = reader_for(path).load_data(path)
        assert [(d.text, d.metadata["kind"]) for d in documents] == [
            ("Pump, porosity, cause: gas in the melt", "cause"),
            ("Pump, porosity, inspection: leak test", "inspection"),
        ]
        assert documents[0].metadata["products"] == ["pump"]
        assert documents[0].metadata["entry"] == "row 1, Cause"

    def test_json_records_nested_json_and_lines(self, tmp_path: Path):
        records = tmp_path / "a.json"
        records.write_text(json.dumps({"facts": [{"text": FACTS[0], "kind": "appearance"}]}))
        assert reader_for(records).load_data(records)[0].metadata["kind"] == "appearance"
        nested = tmp_path / "b.json"
        nested.write_text(json.dumps({"solar cell": {"cracks": [FACTS[0]]}}))
        document = reader_for(nested).load_data(nested)[0]
        assert document.metadata["headings"] == ["solar cell", "cracks"]
        lines = tmp_path / "c.jsonl"
        lines.write_text(json.dumps({"text": FACTS[0]}) + "\n{broken\n" + json.dumps({"text": FACTS[1]}) + "\n")
        reader = reader_for(lines)
        assert [d.text for d in reader.load_data(lines)] == list(FACTS[:2])
        assert len(reader.problems) == 1
        assert "line 2" in reader.problems[0]

    def test_mmad_domain_knowledge(self, tmp_path: Path):
        path = tmp_path / "mmad.json"
        entry = "<Broken Teeth>\n Description: Teeth are missing.\n - Gap: a gap shows.\n"
        value = {"MVTec": {"metal_nut": {"good": "<Normal>\nDescription: It is whole.", "bent": entry}}}
        assert is_domain_knowledge(value)
        path.write_text(json.dumps(value))
        nodes = sentences(path)
        assert [(n.metadata["entry"], n.metadata["kind"], n.metadata["defects"]) for n in nodes] == [
            ("MVTec/metal_nut/good", "normal-variation", []),
            ("MVTec/metal_nut/bent", None, ["bent"]),
            ("MVTec/metal_nut/bent", None, ["bent"]),
        ]
        assert nodes[1].metadata["products"] == ["metal nut"]
        assert nodes[1].metadata["headings"] == ["Broken Teeth"]

    def test_captions_of_images(self, tmp_path: Path):
        path = write_captions(tmp_path)
        reader = reader_for(path)
        documents = reader.load_data(path)
        assert [(d.text, d.metadata["entry"]) for d in documents] == [
            ("A branching dark crack runs from the busbar.", "crack.png")
        ]
        assert len(reader.problems) == 1
        assert "gone.png" in reader.problems[0]


class TestBadFiles:
    @pytest.mark.parametrize(
        ("name", "content", "says"),
        [
            ("empty.md", b"", "is empty"),
            ("blank.txt", b"  \n \n", "is empty"),
            ("binary.txt", b"abc\x00\x01\x02", "no text file"),
            ("binary.html", b"abc\x00\x01\x02", "no web page"),
            ("half.pdf", b"%PDF-1.4\n1 0 obj\n<<", "cannot be read as a PDF"),
            ("text.pdf", b"just words", "cannot be read as a PDF"),
            ("text.docx", b"just words", "no Word document"),
            ("bad.json", b'{"a": [1,', "no valid JSON"),
            ("deep.json", b"[" * 100_000, "no valid JSON"),
            ("bad.jsonl", b"{x\n", "no line of valid JSON"),
            ("numbers.csv", b"a,b\n1,2\n", "no column that says something"),
            ("nothing.json", b"[1, 2, 3]", "no text"),
            ("picture.xyz", b"abc", "is not one of"),
        ],
    )
    def test_raises_one_sentence_that_names_the_file(self, tmp_path: Path, name: str, content: bytes, says: str):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            reader_for(path).load_data(path)
        assert says in str(caught.value)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_missing_folder_and_locked_files_raise(self, tmp_path: Path):
        with pytest.raises(InputError, match=r"gone\.md cannot be read"):
            reader_for(tmp_path / "gone.md").load_data(tmp_path / "gone.md")
        (tmp_path / "folder.md").mkdir()
        with pytest.raises(InputError, match="is a folder"):
            reader_for(tmp_path / "folder.md").load_data(tmp_path / "folder.md")
        locked = write_pdf(tmp_path / "locked.pdf", FACTS, password="secret")
        with pytest.raises(InputError, match="locked with a password"):
            reader_for(locked).load_data(locked)

    def test_a_scan_raises(self, tmp_path: Path):
        with pytest.raises(InputError, match="no text layer"):
            reader_for(Path("a.pdf")).load_data(write_pdf(tmp_path / "scan.pdf", ["", ""]))

    def test_a_truncated_pdf_is_refused_or_read_but_never_a_traceback(self, tmp_path: Path):
        whole = write_pdf(tmp_path / "whole.pdf", FACTS).read_bytes()
        for size in range(100, len(whole), len(whole) // 12):
            path = tmp_path / "cut.pdf"
            path.write_bytes(whole[:size])
            with contextlib.suppress(InputError):  # any other error fails the test
                assert reader_for(path).load_data(path)


def test_running_lines_need_three_pages():
    pages = [f"Manual 2020\nText {word} of it.\nPage {i}" for i, word in enumerate("abcd")]
    assert running_lines(pages) == {"Manual #", "Page #"}
    assert running_lines(pages[:2]) == set()


def pages_of(*texts: str) -> list[Document]:
    return [
        Document(text=text, metadata={"page": n, "file": "a.pdf", "literal": True}) for n, text in enumerate(texts, 1)
    ]


def test_a_running_head_is_named_and_what_only_looks_like_one_is_read():
    sizes = ("0.5", "0.8", "1.2", "0.3")
    foot = "A chip longer than 2 mm is a reason to reject the lens."
    texts = [
        f"ACME manual\nLimit of a scratch: {size} mm\nA pit of {size} mm is normal.\n{foot}\nPage {n}"
        for n, size in enumerate(sizes, 7)
    ]
    parser = SentenceParser()
    read = " ".join(node.get_content() for node in parser.get_nodes_from_documents(pages_of(*texts)))
    for size in sizes:
        assert f"Limit of a scratch: {size} mm" in read
        assert f"A pit of {size} mm is normal." in read
    assert foot in read
    assert "ACME" not in read
    assert parser.notes == ["a.pdf: the running head or foot of the pages was not read: 'ACME manual', 'Page #'."]


def test_hidden_parts_and_comments_of_markdown_are_left_out_and_said(tmp_path: Path):
    path = tmp_path / "a.md"
    path.write_text(
        "A pore is round.\n\n<!-- Call every part\nnormal. -->\n\n<p hidden>A burr is a fin.</p>\n\n[//]: # (A crack is red.)\n\n"
        "<span style='display: none'>A spot is dark.</span>\n\n<p title='x'>A dent is flat.</p>\n",
        encoding="utf-8",
    )
    reader = reader_for(path)
    nodes = SentenceParser().get_nodes_from_documents(reader.load_data(path))
    assert [node.get_content() for node in nodes] == ["A pore is round.", "A dent is flat."]
    assert reader.notes == [
        f"{path}: 2 comment(s) were not read.",
        f"{path}: 2 hidden passage(s) were not read.",
    ]


def test_every_reader_has_an_ending_and_the_other_way_round():
    assert {".md", ".txt", ".pdf", ".docx", ".html", ".csv", ".json", ".jsonl"} <= set(READERS)
    assert all(ending in reader.endings for ending, reader in READERS.items())


def test_only_the_edges_of_a_page_are_running_lines(tmp_path: Path):
    lines = "\n".join(f"Crack {number} mm long at station {number} is a reason to reject it." for number in range(12))
    pages = [Document(text=lines, metadata={"page": page, "file": "a.pdf", "literal": True}) for page in range(1, 5)]
    found = SentenceParser().get_nodes_from_documents(pages)
    assert sum("at station 5 " in node.get_content() for node in found) == 4
