"""What a batch is asked to inspect: folders and manifests, and the keys that make a part recognisable."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plates import plate

from sage_ad.agents.batch.manifest import Part, in_working_order, read_parts
from sage_ad.vlm.errors import InputError


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    """A folder with three pictures, one of them in a folder below, and a note."""
    folder = tmp_path / "plates"
    for name in ("b.png", "a.PNG", "below/c.png"):
        plate(folder / name, False, 1)
    (folder / "note.txt").write_text("no picture", encoding="utf-8")
    return folder


def manifest(path: Path, *lines: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_folder_is_its_pictures_in_the_order_of_names(plates: Path) -> None:
    parts = read_parts(plates, references=[plates / "b.png"], product="plate", questions=["Is it good?"])
    assert [(part.number, Path(part.image).name) for part in parts] == [(1, "a.PNG"), (2, "b.png")]
    assert all(part.references == (str(plates / "b.png"),) and part.product == "plate" for part in parts)
    assert parts[0].request().questions == ["Is it good?"]
    below = read_parts(plates, recursive=True)
    assert [Path(part.image).name for part in below] == ["a.PNG", "b.png", "c.png"]


def test_json_lines_name_what_is_their_own_and_share_the_rest(plates: Path) -> None:
    lines = manifest(
        plates / "parts.jsonl",
        {"image": "a.PNG", "reference": "b.png", "id": 17, "question": "Is it scratched?"},
        {"image": "a.PNG", "references": ["below"], "product": "cover", "domain": None},
        {"image": str(plates / "b.png")},
    )
    first, second, third = read_parts(lines, references=[plates / "a.PNG"], product="plate", questions=["Is it good?"])
    assert (first.id, first.product, first.questions) == ("17", "plate", ("Is it scratched?",))
    assert first.references == (str(plates / "b.png"),)
    assert (second.product, second.questions) == ("cover", ("Is it good?",))
    assert second.references == (str(plates / "below" / "c.png"),)
    assert third.references == (str(plates / "a.PNG"),)


def test_csv_fields_hold_several_between_bars(plates: Path) -> None:
    path = plates / "parts.csv"
    text = '﻿Image,references,QUESTIONS,product\na.PNG,a.PNG | b.png,"Is it good, really?|Where?",\nb.png,,,cover\n'
    path.write_text(text, encoding="utf-8")
    first, second = read_parts(path, product="plate")
    assert [Path(name).name for name in first.references] == ["a.PNG", "b.png"]
    assert first.questions == ("Is it good, really?", "Where?")
    assert (first.product, second.product, second.references) == ("plate", "cover", ())


def test_keys_tell_pieces_of_work_apart(plates: Path) -> None:
    lines = manifest(
        plates / "parts.jsonl", *[{"image": name, "reference": "below/c.png"} for name in ("a.PNG", "b.png", "a.PNG")]
    )
    before = read_parts(lines)
    assert len({part.key for part in before}) == 3
    # Other lines in between change no key, so that a manifest may grow.
    manifest(
        lines, *[{"image": name, "reference": "below/c.png"} for name in ("below/c.png", "a.PNG", "b.png", "a.PNG")]
    )
    assert {part.key for part in before} < {part.key for part in read_parts(lines)}
    # A picture that was replaced is new work.
    os.utime(plates / "b.png", ns=(1, 1))
    after = read_parts(lines)
    assert before[1].key not in {part.key for part in after}
    assert {before[0].key, before[2].key} < {part.key for part in after}
    # Another question is other work.
    assert before[0].key not in {part.key for part in read_parts(lines, questions=["Is it good?"])}


def test_missing_pictures_are_the_business_of_their_rows(plates: Path) -> None:
    lines = manifest(plates / "parts.jsonl", {"image": "gone.png", "reference": "nowhere"})
    (part,) = read_parts(lines)
    assert part.image == str(plates / "gone.png")
    assert part.references == (str(plates / "nowhere"),)


def test_parts_with_the_same_references_come_together() -> None:
    parts = [Part(number, str(number), "i", references=(name,)) for number, name in enumerate("abab")]
    assert [part.number for part in in_working_order(parts)] == [0, 2, 1, 3]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"image": "a.png"}\n{"image": ', r"Line 2 of .*a\.jsonl is no JSON"),
        ("a.jsonl", "[1]\n", "no JSON object"),
        ("a.jsonl", '{"picture": "a.png"}\n', r"Line 1 .*unknown field 'picture'; the fields are: .*image"),
        ("a.jsonl", '{"product": "x"}\n', "names no image"),
        ("a.jsonl", '{"image": 3}\n', "'image' must be a text"),
        ("a.jsonl", '{"image": "a.png", "questions": [1]}\n', "'questions' must be a text or a list"),
        ("a.jsonl", '{"image": "a.png", "reference": "b", "references": "c"}\n', "gives references twice"),
        ("a.jsonl", "\n", "names no part"),
        ("a.csv", "image,prodct\na.png,x\n", "unknown field 'prodct'"),
        ("a.csv", "image,product\na.png,x,y\n", "Line 2 .*another number of fields"),
        ("a.csv", "image;Image\na.png;b.png\n", "first line of .* names 'image' twice"),
        ("a.csv", 'image,id\na.png,"1"x\n', "Line 2 .*no CSV"),
        ("a.jsonl", '{"image": "a.png", "image": "b.png"}\n', "Line 1 .*a name stands twice"),
        ("a.jsonl", '{"image": "a.png", "id": ' + 5000 * "9" + "}", "Line 1 .*no JSON"),
        ("a.csv", b"image\n\x81\x8d.png\n", "neither UTF-8 nor Windows-1252 text; save it as UTF-8"),
        ("a.png", "x", "neither a folder nor a manifest"),
    ],
)
def test_bad_lists_are_one_sentence_that_names_the_line(
    tmp_path: Path, name: str, text: str | bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=said) as caught:
        read_parts(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.csv", "nowhere.jsonl"])
def test_absent_sources_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="nowhere"):
        read_parts(tmp_path / name)


def test_a_shared_reference_that_is_absent_is_refused(plates: Path) -> None:
    with pytest.raises(InputError, match="gone"):
        read_parts(plates, references=[plates / "gone"])


WORDS = st.lists(st.sampled_from([*"abz09 ;,'\"|\t_-.%", "fäß", "né"]), max_size=9).map(
    lambda text: f"p{''.join(text)}q"
)
LISTED = WORDS.filter(lambda text: "|" not in text)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["", "sep={}\r\n"]),
    st.permutations(["id", "image", "references", "product", "questions"]),
    st.lists(st.tuples(WORDS, WORDS, st.lists(LISTED, min_size=1, max_size=3), WORDS, LISTED), min_size=1, max_size=4),
)
def test_any_table_of_parts_is_read_back(
    encoding: str, sign: str, quoting: int, first: str, columns: list[str], rows: list[tuple[Any, ...]]
) -> None:
    entries = [dict(zip(("id", "image", "references", "product", "questions"), row, strict=True)) for row in rows]
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns, delimiter=sign, quoting=quoting)
    writer.writeheader()
    writer.writerows({**entry, "references": "|".join(entry["references"])} for entry in entries)
    writer.writerow(dict.fromkeys(columns, ""))  # as Excel ends a table
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "a.csv").write_bytes((first.format(sign) + stream.getvalue()).encode(encoding))
        lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
        (folder / "a.jsonl").write_bytes("\n".join(lines).encode("utf-8-sig" if "16" not in encoding else encoding))
        for name in ("a.csv", "a.jsonl"):
            parts = read_parts(folder / name)
            assert [(part.id, part.image, list(part.references), part.product, part.questions) for part in parts] == [
                (row[0], str(folder / row[1]), [str(folder / path) for path in row[2]], row[3], (row[4],))
                for row in rows
            ]


def test_what_a_folder_of_references_leaves_out_is_said_once(plates: Path) -> None:
    lines = manifest(plates / "parts.jsonl", *({"image": "a.PNG", "references": ["."]} for _ in range(3)))
    said: list[str] = []
    read_parts(lines, say=said.append)
    assert len(said) == 2
    assert "note.txt" in " ".join(said)
    assert "below" in " ".join(said)
