"""Ranked-answers files: read, written, and wrong lines named."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_ad.evaluation.ranked import RankedAnswers, read_ranked, write_ranked
from sage_ad.vlm.errors import InputError

LINE = {"question": "Is it fine?", "answers": ["Yes.", "No."], "gold": {"verdict": True}}


def test_absent_fields_are_filled_and_lines_survive_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "ranked.jsonl"
    path.write_text(json.dumps(LINE) + "\n\n" + json.dumps({**LINE, "facts": None, "gold": None, "id": "b"}) + "\n")
    lines = read_ranked(path)
    assert [line.id for line in lines] == ["1", "b"]
    assert write_ranked(tmp_path / "again.jsonl", lines) == 2
    assert read_ranked(tmp_path / "again.jsonl") == lines
    assert not list(tmp_path.glob("*.partial"))


TEXTS = st.text(
    st.characters(codec="utf-8") | st.sampled_from("\r\n\x85\u2028\u2029\u202e\x1c<>&'\""), min_size=1
).filter(str.strip)


@settings(max_examples=50, deadline=None)
@given(TEXTS, st.lists(TEXTS, min_size=2, max_size=4, unique=True), st.lists(TEXTS, max_size=2))
def test_any_text_is_read_back(question: str, answers: list[str], facts: list[str]) -> None:
    line = RankedAnswers(id="a", question=question, answers=answers, facts=facts)
    with tempfile.TemporaryDirectory() as folder:
        write_ranked(Path(folder) / "a.jsonl", [line])
        assert read_ranked(Path(folder) / "a.jsonl") == [line]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        (json.dumps({**LINE, "answers": ["only one"]}), "answers"),
        (json.dumps({"answers": ["a", "b"]}), "question"),
        (json.dumps({**LINE, "pair_type": "guessing"}), "pair_type"),
        (json.dumps({**LINE, "scores": [None]}), "1 scores stand beside 2 answers"),
        (json.dumps({**LINE, "gold": {"verdict": "perhaps"}}), "gold.verdict"),
    ],
)
def test_a_wrong_line_is_named_with_what_is_wrong(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "ranked.jsonl"
    path.write_text(json.dumps(LINE) + "\n" + line + "\n")
    with pytest.raises(InputError, match="line 2") as error:
        read_ranked(path)
    assert what in str(error.value)


def test_missing_empty_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_ranked(tmp_path / "absent.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="no ranked answers"):
        read_ranked(tmp_path / "empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="no UTF-8"):
        read_ranked(tmp_path / "binary.jsonl")
