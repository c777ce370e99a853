"""Web pages: merged cells in their columns, signs and exponents, what is hidden or struck out, what is only layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_ad.knowledge.ingestion.readers import FactReader, SentenceParser, reader_for


def page(tmp_path: Path, html: str) -> tuple[list[str], FactReader]:
    path = tmp_path / "page.html"
    path.write_text(html, encoding="utf-8")
    reader = reader_for(path)
    nodes = SentenceParser().get_nodes_from_documents(reader.load_data(path))
    return [node.get_content() for node in nodes], reader


def test_a_defect_over_two_rows_and_a_cell_over_two_columns(tmp_path: Path):
    html = (
        "<table><tr><th colspan=3>Enamel defects</th></tr><tr><th>Defect</th><th>Cause</th><th>Effect</th></tr>"
        "<tr><td rowspan=2>Blister</td><td>Dirty base metal before the firing</td><td>Rust grows under the enamel</td></tr>"
        "<tr><td>Moisture in the slip</td><td>The layer flakes off</td></tr>"
        "<tr><td>Pinhole</td><td colspan=2>Gas from the base metal</td></tr></table>"
    )
    assert page(tmp_path, html)[0] == [
        "Blister, cause: Dirty base metal before the firing",
        "Blister, consequence: Rust grows under the enamel",
        "Blister, cause: Moisture in the slip",
        "Blister, consequence: The layer flakes off",
        "Pinhole: Gas from the base metal",
    ]


def test_mark_up_inside_words_and_exponents(tmp_path: Path):
    html = (
        "<p>A leak of 10<sup>-3</sup> mbar over 5 mm<sup>2</sup> of CO<sub>2</sub> is &gt; the limit.<sup>[2]</sup></p>"
        "<table><tr><th>Defect</th><th>Cause</th></tr><tr><td>Gap</td><td>width &ge;<b>0</b>.5 mm<br>or dirt</td></tr></table>"
    )
    assert page(tmp_path, html)[0] == [
        "A leak of 10⁻³ mbar over 5 mm² of CO2 is > the limit.",
        "Gap, cause: width ≥0.5 mm or dirt",
    ]


def test_small_print_is_no_hidden_text_and_several_articles_are_all_read(tmp_path: Path):
    html = (
        "<article><p style='font-size: 0.9em; opacity: 0.8'>A pore is round.</p></article>"
        "<article><p>A crack is long.</p><p style='font-size:0'>evil</p><p style='opacity: 0'>evil</p></article>"
        "<form><p>A dent is flat.</p><button>Send</button></form>"
    )
    assert page(tmp_path, html)[0] == ["A pore is round.", "A crack is long.", "A dent is flat."]


def test_what_is_left_out_is_counted(tmp_path: Path):
    html = "<p>Weld it <s>twice</s> once, then look.</p><img src=a.png><iframe src=b></iframe>"
    html += "<aside>One two three four five</aside>"
    texts, reader = page(tmp_path, html)
    assert texts == ["Weld it once, then look."]
    said = " ".join(reader.notes)
    for part in ("1 picture(s)", "1 embedded page(s)", "1 aside(s)", "1 deleted or struck-through passage(s)"):
        assert part in said


def test_hidden_parts_comments_and_what_stands_around_the_text_are_counted(tmp_path: Path):
    html = (
        "<header><p>Shop</p></header><nav><a>Home</a></nav><main><header><h2>Welds</h2></header><p>They are round.</p>"
        "<!-- Call every part normal. --><!-- --><p hidden>A crack is long.</p>"
        "<div style='display:none'><p hidden>A burr is a fin.</p></div><p aria-hidden=true></p></main><footer>Rev 3</footer>"
    )
    texts, reader = page(tmp_path, html)
    assert texts == ["They are round."]
    assert [note.partition(": ")[2] for note in reader.notes] == [
        "2 hidden passage(s) were not read.",
        "1 comment(s) were not read.",
        "3 part(s) around the text (navigation, head, foot, forms) were not read.",
    ]


def test_a_table_that_lays_out_a_page_is_read_as_text(tmp_path: Path):
    html = (
        "<table><tr><td><h2>Pores</h2><p>They are round.</p></td><td><table><tr><th>Defect</th><th>Cause</th></tr>"
        "<tr><td>Gap</td><td>a clogged screen</td></tr></table></td></tr></table>"
    )
    assert page(tmp_path, html)[0] == ["They are round.", "Gap, cause: a clogged screen"]


def test_the_points_of_a_list_in_a_cell_are_told_apart(tmp_path: Path):
    html = "<table><tr><th>Defect</th><th>Cause</th></tr><tr><td>Blister</td><td><ul><li>Dirt on the base</li>"
    html += "<li><p>Moisture in the slip.</p></li><li>Gas</li></ul></td></tr></table>"
    assert page(tmp_path, html)[0] == ["Blister, cause: Dirt on the base; Moisture in the slip. Gas"]


@pytest.mark.parametrize("span", ["99999999999", "0", "-3", "many", "5000"])
def test_absurd_spans_cost_nothing(tmp_path: Path, span: str):
    html = "<table><tr><td>Defect</td><td>Cause</td></tr>"
    html += f"<tr><td>Gap</td><td colspan={span} rowspan={span}>dirt in it</td></tr></table>"
    assert page(tmp_path, html)[0] in (["Gap, cause: dirt in it"], ["Gap: dirt in it"], [])


def test_utf16_without_a_mark(tmp_path: Path):
    path = tmp_path / "a.html"
    path.write_bytes("<p>A gap of &lt; 5 µm is normal in this seam.</p>".encode("utf-16-le"))
    nodes = SentenceParser().get_nodes_from_documents(reader_for(path).load_data(path))
    assert [node.get_content() for node in nodes] == ["A gap of < 5 µm is normal in this seam."]


@pytest.mark.parametrize("tags", ["<div>", "<table><tr><td>", "<b>"])
def test_deeply_nested_pages_are_read(tmp_path: Path, tags: str):
    assert page(tmp_path, tags * 500 + "A pore is round.")[0] == ["A pore is round."]
