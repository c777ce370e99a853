"""Preference data of every make is read with its pictures, or refused in a sentence that names the row."""

from __future__ import annotations

import base64
import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from sage_ad.alignment.cli import app as train_app
from sage_ad.evaluation.cli import app as eval_app
from sage_ad.evaluation.preference_data import (
    beside,
    missing_pictures,
    read_preferences,
    require_pictures,
)
from sage_ad.evaluation.ranked import RankedAnswers, read_ranked
from sage_ad.vlm.errors import InputError

QUESTION, BETTER, WORSE = "Is the bottle free of defects?", "No. The rim is broken.", "Yes, it is intact."
PAIR = {"prompt": QUESTION, "chosen": BETTER, "rejected": WORSE}


TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="<|>") | st.sampled_from("\r\n\x85\u2028\u2029\u202e\x1c&'\""),
    min_size=1,
).filter(str.strip)


def png(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in (("part.png", "red"), ("good.png", "green"), ("detail.png", "blue")):
        (tmp_path / name).write_bytes(png(colour))
    return tmp_path


def colour_of(file: str | None) -> tuple[int, ...]:
    assert file is not None
    with Image.open(file) as picture:
        pixel = picture.convert("RGB").getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel


RED, GREEN = (255, 0, 0), (0, 128, 0)


def said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def value(role: str, text: str) -> dict[str, Any]:
    return {"from": role, "value": text}


CHOSEN = {"chosen": [said("assistant", BETTER)], "rejected": [said("assistant", WORSE)]}
ASKED_WITH_PICTURE: dict[str, Callable[[], dict[str, Any]]] = {
    "TRL": lambda: PAIR | {"images": ["part.png"]},
    "TRL, one picture as text": lambda: PAIR | {"images": "part.png"},
    "TRL, image": lambda: PAIR | {"image": "part.png"},
    "TRL, picture in the prompt": lambda: (
        CHOSEN
        | {
            "prompt": [
                {
                    "role": "user",
                    "content": [{"type": "image", "image": "part.png"}, {"type": "text", "text": QUESTION}],
                }
            ]
        }
    ),
    "OpenAI, data URL": lambda: (
        CHOSEN
        | {
            "prompt": [
                said("system", "You inspect parts."),
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": QUESTION},
                        {
                            "type": "image_url",
                            "image_url": {
                                "url": f"data:image/png;base64,{base64.b64encode(png('red')).decode('ascii')}"
                            },
                        },
                    ],
                },
            ]
        }
    ),
    "TRL, no prompt of its own": lambda: {
        "chosen": [said("user", QUESTION), said("assistant", BETTER)],
        "rejected": [said("user", QUESTION), said("assistant", WORSE)],
        "images": ["part.png"],
    },
    "LlamaFactory, ShareGPT": lambda: {
        "conversations": [value("human", f"<image>{QUESTION}")],
        "chosen": value("gpt", BETTER),
        "rejected": value("gpt", WORSE),
        "images": ["part.png"],
    },
    "LlamaFactory, OpenAI": lambda: {
        "messages": [said("system", "You inspect parts."), said("user", f"<image>\n{QUESTION}")],
        "chosen": said("assistant", BETTER),
        "rejected": said("assistant", WORSE),
        "images": ["part.png"],
    },
    "LlamaFactory, Alpaca": lambda: {
        "instruction": QUESTION,
        "input": "",
        "chosen": BETTER,
        "rejected": WORSE,
        "images": ["part.png"],
    },
    "LlamaFactory, older Alpaca": lambda: {
        "instruction": QUESTION,
        "input": "",
        "output": [BETTER, WORSE],
        "images": ["part.png"],
    },
    "RLAIF-V": lambda: {"question": QUESTION, "chosen": BETTER, "rejected": WORSE, "image": {"path": "part.png"}},
}


@pytest.mark.parametrize("ending", ["json", "jsonl", "lines.json"])
@pytest.mark.parametrize("form", ASKED_WITH_PICTURE)
def test_every_form_gives_question_answers_and_picture(folder: Path, form: str, ending: str) -> None:
    row = ASKED_WITH_PICTURE[form]()
    file = folder / f"data.{ending}"
    file.write_text(json.dumps([row]) if ending == "json" else json.dumps(row) + "\n", encoding="utf-8")
    lines = read_preferences(file)
    assert lines is not None
    assert [(line.question, line.answers, line.reference) for line in lines] == [(QUESTION, [BETTER, WORSE], None)]
    assert colour_of(lines[0].image) == RED


@pytest.mark.parametrize("column", ["image", "images"])
def test_pictures_embedded_in_parquet_are_kept(folder: Path, column: str) -> None:
    """Hugging Face's `Image` column: bytes in the file, the path only a name."""
    picture, good = ({"bytes": png(colour), "path": None} for colour in ("red", "green"))
    cell: Any = picture if column == "image" else [good, picture]
    pq.write_table(pa.Table.from_pylist([PAIR | {column: cell}] * 2), folder / "data.parquet")
    lines = read_preferences(folder / "data.parquet", folder / "kept")
    assert lines is not None
    assert [colour_of(line.image) for line in lines] == [RED, RED]
    assert [line.reference and colour_of(line.reference) for line in lines] == [
        None if column == "image" else GREEN
    ] * 2
    assert len(list((folder / "kept").iterdir())) == (1 if column == "image" else 2)


def test_of_two_pictures_the_reference_comes_first(folder: Path) -> None:
    (folder / "data.jsonl").write_text(json.dumps(PAIR | {"images": ["good.png", "part.png"]}))
    (line,) = read_preferences(folder / "data.jsonl") or []
    assert (colour_of(line.reference), colour_of(line.image)) == (GREEN, RED)
    (folder / "data.jsonl").write_text(json.dumps(PAIR | {"image": "part.png", "reference": "good.png"}))
    (line,) = read_preferences(folder / "data.jsonl") or []
    assert (colour_of(line.reference), colour_of(line.image)) == (GREEN, RED)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (PAIR | {"images": ["good.png", "part.png", "detail.png"]}, "row 1: there are 3 pictures"),
        (PAIR | {"images": ["https://example.org/part.png"]}, "on the web"),
        (PAIR | {"images": [{"bytes": None, "path": None}]}, "neither a path nor bytes"),
        (PAIR | {"images": ["data:image/png;base64,???"]}, "no Base64"),
        (PAIR | {"images": ["data:image/png;base64,AAAA"]}, "cannot be read"),
        ({"prompt": QUESTION, "completion": BETTER, "label": True}, "no ranking"),
        ({"prompt": QUESTION, "chosen": BETTER}, "empty"),
        ({"conversations": [value("gpt", "Hello.")], "chosen": BETTER, "rejected": WORSE}, "empty"),
        (PAIR | {"rejected": BETTER}, "alike"),
    ],
)
def test_what_cannot_be_kept_is_refused_in_one_sentence(folder: Path, row: dict[str, Any], why: str) -> None:
    (folder / "data.jsonl").write_text(json.dumps(row))
    with pytest.raises(InputError, match=why):
        read_preferences(folder / "data.jsonl")


def test_a_missing_picture_is_named_once(folder: Path) -> None:
    (folder / "data.jsonl").write_text("\n".join([json.dumps(PAIR | {"images": ["gone/part.png"]})] * 3))
    lines = read_preferences(folder / "data.jsonl") or []
    assert missing_pictures(lines) == [str(folder / "gone" / "part.png")]
    with pytest.raises(InputError, match=r"data\.jsonl: a picture is missing .*gone"):
        require_pictures(lines, folder / "data.jsonl")


ADPL = [
    {
        "pair_type": "diagnosis",
        "category": "bottle",
        "test_image": "part.png",
        "reference_image": "good.png",
        "question_answer": [
            {"question_en": QUESTION, "answer_options": [{"answer_en": BETTER}, {"answer_en": WORSE}]},
        ],
    }
]


def test_a_file_of_something_else_is_told_what_is_read(folder: Path) -> None:
    (folder / "data.jsonl").write_text('{"temperature": 20}')
    with pytest.raises(InputError, match=r"neither answers nor labelled images.*LlamaFactory"):
        read_preferences(folder / "data.jsonl")


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_adpl_is_read_and_a_missing_reference_named(folder: Path, ending: str) -> None:
    file = folder / f"data.{ending}"
    file.write_text(json.dumps(ADPL if ending == "json" else ADPL[0]))
    (line,) = read_preferences(file) or []
    assert line.answers == [BETTER, WORSE]
    assert (colour_of(line.reference), colour_of(line.image)) == (GREEN, RED)
    (folder / "good.png").unlink()
    with pytest.raises(InputError, match=r"good\.png.*missing"):
        read_preferences(file)


def test_lines_can_be_moved_with_their_pictures(folder: Path) -> None:
    outside = folder.parent / "elsewhere.png"
    line = RankedAnswers(question="q", answers=["a", "b"], image=str(folder / "in" / "part.png"), mask=str(outside))
    (moved,) = beside([line], folder)
    assert (moved.image, moved.mask) == ("in/part.png", str(outside))


def test_unknown_keys_of_ranked_lines_are_ignored_and_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    line = {"question": QUESTION, "answers": [BETTER, WORSE], "annotator": "A", "gold": {"verdict": False, "shift": 2}}
    (folder / "ranked.jsonl").write_text("\n".join([json.dumps(line)] * 2))
    unknown = Counter[str]()
    lines = read_ranked(folder / "ranked.jsonl", unknown)
    assert unknown == {"annotator": 2, "gold.shift": 2}
    assert lines[0].gold is not None
    assert lines[0].gold.verdict is False
    assert not caplog.records
    read_ranked(folder / "ranked.jsonl")
    assert "annotator (2 lines)" in caplog.text


class TestCommands:
    def test_convert_keeps_pictures_beside_its_file(self, folder: Path) -> None:
        pq.write_table(
            pa.Table.from_pylist([PAIR | {"images": [{"bytes": png("red"), "path": "x"}]}]), folder / "d.parquet"
        )
        out = folder / "out" / "ranked.jsonl"
        done = CliRunner().invoke(
            train_app, ["convert", str(folder / "d.parquet"), "--to", "ranked", "--out", str(out)]
        )
        assert done.exit_code == 0, done.output
        (line,) = read_ranked(out)
        assert line.image is not None
        assert not Path(line.image).is_absolute()
        assert colour_of(str(out.parent / line.image)) == RED

    @pytest.mark.parametrize("command", ["convert", "edpo"])
    def test_a_missing_picture_is_bad_input(self, folder: Path, command: str) -> None:
        file = folder / "data.jsonl"
        file.write_text(json.dumps(PAIR | {"images": ["gone/part.png"]}))
        arguments = {
            "convert": [str(file), "--out", str(folder / "out.jsonl")],
            "edpo": ["--data", str(file), "--eta", "0", "--pairs", "extreme", "--out", str(folder / "out")],
        }[command]
        done = CliRunner().invoke(train_app, [command, *arguments])
        assert isinstance(done.exception, InputError)
        assert "gone" in str(done.exception)

    @pytest.mark.parametrize("make", ["TRL", "ADPL", "ranked"])
    def test_score_reads_what_others_write(self, folder: Path, make: str) -> None:
        content = {
            "TRL": json.dumps(PAIR | {"images": ["part.png"]}),
            "ADPL": json.dumps(ADPL[0]),
            "ranked": json.dumps({"question": QUESTION, "answers": [BETTER, WORSE], "image": "part.png", "new": 1}),
        }[make]
        (folder / "data.jsonl").write_text(content)
        done = CliRunner().invoke(
            train_app, ["score", str(folder / "data.jsonl"), "--out", str(folder / "out"), "--json"]
        )
        (line,) = read_ranked(folder / "out" / "scored.jsonl")
        assert line.image is not None
        assert colour_of(line.image) == RED
        assert "lists" in done.stdout

    def test_judge_reads_pairs_and_says_what_it_ignored(self, folder: Path) -> None:
        gold = {"verdict": False, "anomalous": True, "defect": "broken rim", "reference_answer": BETTER}
        line = {"question": QUESTION, "answers": [BETTER, WORSE], "gold": gold, "annotator": "A"}
        (folder / "ranked.jsonl").write_text(json.dumps(line))
        done = CliRunner().invoke(eval_app, ["judge", str(folder / "ranked.jsonl"), "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["unknown_keys"] == {"annotator": 1}
        (folder / "pairs.json").write_text(json.dumps([PAIR]))
        assert "unscored" in CliRunner().invoke(eval_app, ["judge", str(folder / "pairs.json")]).stdout


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([".jsonl", ".json", ".parquet"]),
    st.sampled_from(["TRL", "messages", "ranked"]),
    st.lists(st.lists(TEXTS, min_size=3, max_size=3, unique_by=str.strip), min_size=1, max_size=3),
)
def test_any_pair_is_read_back(ending: str, form: str, texts: list[list[str]]) -> None:
    rows: list[dict[str, Any]] = []
    for question, better, worse in texts:
        if form == "TRL":
            rows.append({"prompt": question, "chosen": better, "rejected": worse})
        elif form == "messages":
            answers = {"chosen": [said("assistant", better)], "rejected": [said("assistant", worse)]}
            rows.append({"prompt": [said("system", "Be brief."), said("user", question)], **answers})
        else:
            rows.append({"question": question, "answers": [better, worse]})
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"a{ending}"
        if ending == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        elif ending == ".json":
            path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        else:
            path.write_text("\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8-sig", newline="")
        lines = read_preferences(path)
    plain = str if form == "ranked" else str.strip
    assert lines is not None
    assert [[line.question, *line.answers] for line in lines] == [[*map(plain, row)] for row in texts]
