"""Readers of sets with questions of their own: MANTA, AD-PL, MMAD, whole and half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trees import disc, picture

from sage_ad.evaluation.datasets import open_dataset, place_of_sample
from sage_ad.evaluation.datasets.adpl import ADPL, ranked_lines, write_adpl
from sage_ad.vlm.errors import InputError


def test_manta_layout(tmp_path: Path) -> None:
    picture(tmp_path / "img" / "1.png")
    record = {
        "domain": "pill",
        "test_image": "/elsewhere/img/1.png",
        "pair_type": "standard comparison",
        "conclusion_en": "It is cracked.",
        "question_answer": [
            {"question_en": "Is the pill free of defects?", "answer": False, "conclusion_en": "A crack is seen."},
            {"question_en": "Is the pill defective?", "answer": True},
            {"question_en": "Is it round?", "answer": "perhaps"},
        ],
    }
    (tmp_path / "qa.json").write_text(json.dumps([record, 5, {"domain": "pill", "test_image": "img/2.png"}]))
    dataset = open_dataset(tmp_path)
    assert dataset.format == "manta"
    (sample,) = dataset.samples()
    assert sample.image == tmp_path / "img" / "1.png"
    assert sample.anomalous is True
    assert [(q.verdict, q.polarity, q.anomalous) for q in sample.questions] == [
        (False, "normal", True),
        (True, "anomalous", True),
    ]
    assert sample.questions[1].reference_answer == "True. It is cracked."
    assert len(dataset.problems) == 3


def adpl_record(image: str) -> dict[str, object]:
    options = [{"answer_en": text, "answer_cn": "…"} for text in ("False. A scratch, upper left.", "False.", "True.")]
    questions = [{"question_en": "Is the bottle normal?", "question_cn": "?", "answer_options": options}] * 5
    return {
        "pair_type": "standard comparison",
        "test_image": image,
        "reference_image": "mvtec/bottle/train/good/0.png",
        "question_answer": questions,
    }


def test_adpl_reads_and_writes(tmp_path: Path) -> None:
    picture(tmp_path / "mvtec" / "bottle" / "test" / "scratch" / "1.png")
    picture(tmp_path / "mvtec" / "bottle" / "train" / "good" / "0.png")
    (tmp_path / "adpl.json").write_text(json.dumps([adpl_record("mvtec/bottle/test/scratch/1.png")]))
    dataset = open_dataset(tmp_path / "adpl.json")
    assert isinstance(dataset, ADPL)
    assert dataset.categories == ["bottle"]
    (sample,) = dataset.samples()
    assert sample.reference == tmp_path / "mvtec" / "bottle" / "train" / "good" / "0.png"
    assert sample.anomalous is True
    lines = list(ranked_lines(dataset))
    assert lines[0]["answers"][0] == "False. A scratch, upper left."
    assert lines[0]["gold"]["verdict"] is False
    assert write_adpl(lines, tmp_path / "again.json") == 1
    again = open_dataset(tmp_path / "again.json")
    (copy,) = again.samples()
    assert [(q.text, q.ranked, q.verdict) for q in copy.questions] == [
        (q.text, q.ranked, q.verdict) for q in sample.questions
    ]
    with pytest.raises(InputError, match="Line 1"):
        write_adpl([{"question": "Is it?"}], tmp_path / "never.json")


def test_a_half_written_record_file_gives_what_is_whole(tmp_path: Path) -> None:
    picture(tmp_path / "bottle" / "test" / "s" / "1.png")
    whole = json.dumps([adpl_record("bottle/test/s/1.png"), adpl_record("bottle/test/s/1.png")], indent=1)
    (tmp_path / "half.json").write_text(whole[: len(whole) * 2 // 3])
    dataset = open_dataset(tmp_path / "half.json")
    assert len(list(dataset.samples())) == 1
    assert any("breaks off after 1 records" in problem.reason for problem in dataset.problems)
    lines = [json.dumps(adpl_record("bottle/test/s/1.png")) for _ in range(3)]
    (tmp_path / "half.jsonl").write_text("\n".join([lines[0], lines[1][:50], lines[2]]))
    dataset = open_dataset(tmp_path / "half.jsonl")
    assert len(list(dataset.samples())) == 2
    assert any("line 2" in problem.path for problem in dataset.problems)


def test_mmad_layout(tmp_path: Path) -> None:
    key = "DS-MVTec/bottle/image/broken_large/000.png"
    picture(tmp_path / key)
    picture(tmp_path / "DS-MVTec" / "bottle" / "image" / "good" / "001.png")
    disc(tmp_path / "DS-MVTec" / "bottle" / "mask" / "broken_large" / "000.png")
    question = {"Question": "Is there any defect?", "Options": {"A": "Yes.", "B": "No."}, "Answer": "A"}
    record = {
        "similar_templates": ["DS-MVTec/bottle/image/good/001.png", "DS-MVTec/bottle/image/good/gone.png"],
        "mask_path": "mask/broken_large/000.png",
        "conversation": [
            question | {"type": "Anomaly Detection"},
            question | {"type": "Defect Localization", "Answer": "C"},
            question | {"type": "Object Analysis", "Answer": "B"},
        ],
    }
    (tmp_path / "mmad.json").write_text(json.dumps({key: record, "DS-MVTec/bottle/image/good/007.png": record}))
    dataset = open_dataset(tmp_path)
    assert dataset.format == "mmad"
    (sample,) = dataset.samples()
    assert (sample.category, sample.defect, sample.anomalous) == ("DS-MVTec/bottle", "broken_large", True)
    assert sample.reference == tmp_path / "DS-MVTec" / "bottle" / "image" / "good" / "001.png"
    assert place_of_sample(sample) == "centre"
    assert [(q.subtask, q.letter) for q in sample.questions] == [("Anomaly Detection", "A"), ("Object Analysis", "B")]
    named = "\n".join(map(str, dataset.problems))
    assert "gone.png: this template is missing" in named
    assert "007.png: the image is missing" in named
    assert "question 2" in named
