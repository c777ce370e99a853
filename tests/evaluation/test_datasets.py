"""Readers: every layout on small trees made here, real files that are worse than layouts, and the real images."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.datasets import load_mask, open_dataset, place_of_mask, place_of_sample, places_of_mask
from evaluation.datasets.adpl import ADPL, ranked_lines, write_adpl
from evaluation.datasets.common import Sample
from evaluation.datasets.registry import READERS, detect_format
from vlm.errors import InputError


def picture(path: Path, size: tuple[int, int] = (40, 30), value: int = 120, **save: object) -> Path:
    """Writes a small grey picture (width, height) and gives its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path, **save)
    return path


def mask(path: Path, box: tuple[int, int, int, int], size: tuple[int, int] = (40, 30), value: int = 255) -> Path:
    """Writes a mask with one filled box."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((size[1], size[0]), np.uint8)
    values[box[1] : box[3], box[0] : box[2]] = value
    Image.fromarray(values).save(path)
    return path


def disc(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    """Writes a mask with a disc in its middle: no filled box."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[: size[1], : size[0]]
    inside = (rows - size[1] / 2) ** 2 + (columns - size[0] / 2) ** 2 < (min(size) / 3) ** 2
    Image.fromarray(inside.astype(np.uint8) * 255).save(path)
    return path


def by_name(samples: list[Sample]) -> dict[str, Sample]:
    return {sample.image.name: sample for sample in samples}


# --- MVTec AD and relatives -----------------------------------------------------------------------------------------


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    root = tmp_path / "my set"
    picture(root / "größe 1" / "train" / "good" / "a 1.PNG")
    picture(root / "größe 1" / "test" / "good" / "b.JPG")
    picture(root / "größe 1" / "test" / "tiefer riß" / "c.bmp")
    picture(root / "größe 1" / "test" / "tiefer riß" / "d.png")
    disc(root / "größe 1" / "ground_truth" / "tiefer riß" / "c_mask.PNG")
    picture(root / "nut" / "train" / "good" / "a.png")
    picture(root / "nut" / "test" / "good" / "a.png")
    return root


def test_mvtec_layout(mvtec: Path) -> None:
    dataset = open_dataset(mvtec)
    assert dataset.format == "mvtec"
    assert dataset.categories == ["größe 1", "nut"]
    samples = by_name(list(dataset.samples("größe 1")))
    assert {name: (s.split, s.defect, s.anomalous) for name, s in samples.items()} == {
        "a 1.PNG": ("train", "good", False),
        "b.JPG": ("test", "good", False),
        "c.bmp": ("test", "tiefer riß", True),
        "d.png": ("test", "tiefer riß", True),
    }
    assert samples["c.bmp"].mask_kind == "pixel"
    assert (samples["d.png"].masks, samples["d.png"].mask_kind) == ((), None)  # a missing mask is no fault
    assert dataset.problems == []
    assert place_of_sample(samples["c.bmp"]) == "centre"
    # One category opened by itself gives the same names, so that seeded wordings do not change.
    alone = open_dataset(mvtec / "größe 1")
    assert [s.id for s in alone.samples()] == [s.id for s in samples.values()]


def test_choosing_categories(mvtec: Path) -> None:
    assert {s.category for s in open_dataset(mvtec, categories=["nut"]).samples()} == {"nut"}
    with pytest.raises(InputError, match=r"no category 'bolt'.*größe 1, nut"):
        open_dataset(mvtec, categories=["bolt"])


def test_broken_files_are_counted_and_named(mvtec: Path) -> None:
    bad = mvtec / "nut" / "test" / "scratch"
    picture(bad / "whole.png", size=(200, 200))
    (bad / "empty.png").touch()
    (bad / "text.png").write_text("I am no picture")
    (bad / "notes.txt").write_text("x")
    (bad / "Thumbs.db").write_text("x")
    whole = (bad / "whole.png").read_bytes()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80), np.uint8)).save(bad / "half.png")
    half = (bad / "half.png").read_bytes()
    (bad / "half.png").write_bytes(half[: len(half) // 2])
    (mvtec / "nut" / "test" / "dent").mkdir()
    mask(mvtec / "nut" / "ground_truth" / "scratch" / "ghost_mask.png", (0, 0, 5, 5))
    dataset = open_dataset(mvtec, categories=["nut"])
    samples = by_name(list(dataset.samples("nut", "test")))
    assert {"whole.png", "half.png"} <= samples.keys()
    assert whole
    assert dataset.load(samples["half.png"]) is None  # found only when the pixels are decoded
    assert dataset.load(samples["whole.png"]) is not None
    named = {problem.path.rsplit("/", 1)[-1]: problem.reason for problem in dataset.problems}
    assert named.keys() == {"empty.png", "text.png", "notes.txt", "half.png", "dent", "ghost_mask.png"}
    assert "0 bytes" in named["empty.png"]
    assert "no picture" in named["text.png"]
    count = len(dataset.problems)
    list(dataset.samples("nut"))
    assert len(dataset.problems) == count  # met twice, counted once


def test_loco_unites_several_masks(tmp_path: Path) -> None:
    root = tmp_path / "loco" / "breakfast_box"
    picture(root / "train" / "good" / "000.png")
    picture(root / "validation" / "good" / "000.png")
    picture(root / "test" / "logical_anomalies" / "001.png")
    mask(root / "ground_truth" / "logical_anomalies" / "001" / "000.png", (0, 0, 4, 4))
    mask(root / "ground_truth" / "logical_anomalies" / "001" / "001.png", (30, 20, 34, 24), value=7)
    dataset = open_dataset(tmp_path / "loco", format="loco")
    assert len(dataset.normals("breakfast_box")) == 2
    (sample,) = dataset.samples(split="test")
    united = load_mask(sample, (40, 30))
    assert united is not None
    assert united.sum() == 32
    assert places_of_mask(united) == ["upper left", "lower right"]


def test_filled_boxes_are_told_from_outlines(tmp_path: Path) -> None:
    for kind in ("boxed", "drawn"):
        root = tmp_path / kind
        picture(root / "train" / "good" / "g.png", (90, 90))
        for number in range(3):
            picture(root / "test" / "dent" / f"{number}.png", (90, 90))
            target = root / "ground_truth" / "dent" / f"{number}_mask.png"
            if kind == "boxed":
                mask(target, (5, 5 + number, 40, 50), (90, 90))
            else:
                disc(target, (90, 90))
    dataset = open_dataset(tmp_path)
    assert {s.category: s.mask_kind for s in dataset.samples(split="test")} == {"boxed": "box", "drawn": "pixel"}
    assert "boxed" in dataset.notes[0]


def write_index(path: Path, rows: list[dict[str, str]]) -> None:
    fields = ["path", "group", "category", "split", "defect", "mask", "mask_kind", "reference", "meta"]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fields, restval="")
        writer.writeheader()
        writer.writerows(rows)


def test_index_far_above_the_data_is_honoured(tmp_path: Path) -> None:
    part = tmp_path / "group" / "board"
    picture(part / "train" / "good" / "t.png")
    picture(part / "test" / "short" / "x.png")
    picture(part / "test" / "short" / "y.png")
    disc(part / "ground_truth" / "short" / "x_mask.png")
    disc(part / "ground_truth" / "short" / "y_mask.png")
    write_index(
        tmp_path / "index.csv",
        [
            {
                "path": "group/board/test/short/x.png",
                "category": "board",
                "split": "test",
                "defect": "short",
                "mask": "group/board/ground_truth/short/x_mask.png",
                "mask_kind": "box",
                "reference": "group/board/train/good/t.png",
                "meta": '{"boxes": [[1, 2, 3, 4]]}',
            },
            {
                "path": "group/board/test/short/y.png",
                "category": "board",
                "split": "test",
                "defect": "short",
                "reference": "group/board/train/good/gone.png",
                "mask_kind": "blob",
                "meta": "{no json",
            },
            {"path": "group/board/test/short/z.png", "category": "board", "split": "test", "defect": "short"},
        ],
    )
    for root in (part, tmp_path / "group"):
        dataset = open_dataset(root)
        samples = by_name(list(dataset.samples(split="test")))
        assert samples["x.png"].mask_kind == "box"
        assert samples["x.png"].reference == part.resolve() / "train" / "good" / "t.png"
        assert samples["x.png"].meta == {"boxes": [[1, 2, 3, 4]]}
        assert samples["y.png"].reference is None
        text = "\n".join(map(str, dataset.problems))
        assert "gone.png" in text
        assert "z.png: index.csv lists this image, but it is missing" in text
        assert "'blob'" in text or "no JSON" in text


def test_a_foreign_index_is_left_alone(mvtec: Path) -> None:
    (mvtec / "index.csv").write_text("name,price\nnut,3\n")
    dataset = open_dataset(mvtec)
    assert list(dataset.samples())
    assert dataset.problems == []


def test_missing_splits(tmp_path: Path) -> None:
    picture(tmp_path / "steel" / "test" / "patch" / "a.png")
    (tmp_path / "steel" / "train" / "good").mkdir(parents=True)
    dataset = open_dataset(tmp_path)
    assert dataset.normals("steel") == []
    assert [str(problem) for problem in dataset.problems] == ["steel/train/good: the folder holds no picture"]


# --- other layouts --------------------------------------------------------------------------------------------------


def test_btad_layout(tmp_path: Path) -> None:
    root = tmp_path / "btad"
    picture(root / "01" / "train" / "ok" / "0.bmp")
    picture(root / "01" / "test" / "ok" / "1.png")
    picture(root / "01" / "test" / "ko" / "2.bmp")
    disc(root / "01" / "ground_truth" / "ko" / "2.png")
    dataset = open_dataset(root)
    assert dataset.format == "btad"
    assert [(s.split, s.anomalous, s.mask_kind) for s in dataset.samples()] == [
        ("train", False, None),
        ("test", True, "pixel"),
        ("test", False, None),
    ]


def test_visa_layout(tmp_path: Path) -> None:
    root = tmp_path / "visa"
    images = root / "candle" / "Data" / "Images"
    for number in range(4):
        picture(images / "Normal" / f"000{number}.JPG")
    picture(images / "Anomaly" / "000.JPG")
    mask(root / "candle" / "Data" / "Masks" / "Anomaly" / "000.png", (30, 0, 40, 8), value=3)
    (root / "candle" / "image_anno.csv").write_text(
        "image,label,mask\n"
        'candle/Data/Images/Anomaly/000.JPG,"chunk of wax missing",candle/Data/Masks/Anomaly/000.png\n'
    )
    unsplit = open_dataset(root)
    assert unsplit.format == "visa"
    assert "no split_csv" in unsplit.notes[0]
    (root / "split_csv").mkdir()
    lines = ["object,split,label,image,mask"]
    lines += [
        f"candle,{'test' if n == 3 else 'train'},normal,candle/Data/Images/Normal/000{n}.JPG," for n in (0, 1, 3, 9)
    ]
    lines.append("candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png")
    (root / "split_csv" / "1cls.csv").write_text("\n".join(lines))
    dataset = open_dataset(root)
    samples = by_name(list(dataset.samples()))
    assert {name: s.split for name, s in samples.items() if not s.anomalous} == {
        "0000.JPG": "train",
        "0001.JPG": "train",
        "0002.JPG": "test",
        "0003.JPG": "test",
    }
    bad = samples["000.JPG"]
    assert bad.defect == "chunk of wax missing"
    marked = load_mask(bad, (40, 30))
    assert marked is not None
    assert marked.sum() == 80  # class number 3 counts as marked
    assert place_of_mask(marked) == "upper right"
    reasons = "\n".join(map(str, dataset.problems))
    assert "0009.jpg: the split file lists this image" in reasons
    assert "0002.jpg: the split file does not list" in reasons
    assert open_dataset(root / "candle").categories == ["candle"]


def test_deeppcb_layout(tmp_path: Path) -> None:
    folder = tmp_path / "PCBData" / "group1" / "00041"
    for stem in ("a", "b", "c", "d"):
        picture(folder / f"{stem}_test.jpg", (90, 90))
        if stem != "c":
            picture(folder / f"{stem}_temp.jpg", (90, 90))
    notes = folder.with_name("00041_not")
    notes.mkdir()
    (notes / "a.txt").write_text("60 0 90 20 3\n70 5 80 15 3\n")
    (notes / "b.txt").write_text("")
    (notes / "c.txt").write_text("1,2,10,20,1\n1,2,10,20,2\nhalf a li")
    (notes / "d.txt").write_text("garbage\n")
    dataset = open_dataset(tmp_path / "PCBData")
    assert dataset.format == "deeppcb"
    samples = by_name(list(dataset.samples(split="test")))
    assert samples["a_test.jpg"].reference == folder / "a_temp.jpg"
    assert (samples["a_test.jpg"].defect, samples["a_test.jpg"].mask_kind) == ("mousebite", "box")
    assert place_of_sample(samples["a_test.jpg"]) == "upper right"
    assert samples["b_test.jpg"].anomalous is False
    assert samples["c_test.jpg"].defect == "mixed"
    assert "d_test.jpg" not in samples  # unreadable boxes must not pass for "no defect"
    assert len(dataset.problems) == 3
    assert len(dataset.normals("pcb")) == 3
    with pytest.raises(InputError, match="size"):
        load_mask(samples["a_test.jpg"])


def test_elpv_layout(tmp_path: Path) -> None:
    for number in range(6):
        picture(tmp_path / "images" / f"cell{number:04}.png")
    (tmp_path / "labels.csv").write_text(
        "images/cell0000.png 0.0 mono\nimages/cell0001.png 0.0 mono\nimages/cell0002.png 1.0 mono\n"
        "images/cell0003.png 0.3333333333333333 mono\nimages/cell0004.png 1.0 poly\nimages/cell0009.png 0.0 poly\n"
        "images/"
    )
    dataset = open_dataset(tmp_path)
    assert dataset.format == "elpv"
    assert [(s.image.name, s.split, s.anomalous) for s in dataset.samples("mono")] == [
        ("cell0000.png", "train", False),
        ("cell0001.png", "test", False),
        ("cell0002.png", "test", True),
    ]
    assert len(list(dataset.samples("poly"))) == 1
    assert "1 mono cells with a doubtful label" in dataset.notes[0]
    assert [str(problem) for problem in dataset.problems] == [
        "labels.csv: line 7 is not: path, probability, type",
        "images/cell0009.png: the image is missing",
    ]


# --- sets of questions ----------------------------------------------------------------------------------------------


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


# --- masks ----------------------------------------------------------------------------------------------------------


def test_mask_of_another_size_and_kind(tmp_path: Path) -> None:
    small = Sample(tmp_path / "x.png", "c", "test", masks=(mask(tmp_path / "m.png", (0, 0, 1, 1), (400, 300)),))
    scaled = load_mask(small, (40, 30))
    assert scaled is not None
    assert scaled.shape == (30, 40)
    assert scaled.sum() == 1  # one marked pixel of 120,000 survives the scaling
    Image.fromarray(np.full((30, 40), 20, np.uint8)).save(tmp_path / "m.jpg", quality=30)
    faint = load_mask(Sample(tmp_path / "x.png", "c", "test", masks=(tmp_path / "m.jpg",)))
    assert faint is not None
    assert not faint.any()  # compression noise is no defect
    colour = np.zeros((30, 40, 4), np.uint8)
    colour[..., 3] = 255
    colour[:10, :10, 0] = 255
    Image.fromarray(colour).save(tmp_path / "rgba.png")
    red = load_mask(Sample(tmp_path / "x.png", "c", "test", masks=(tmp_path / "rgba.png",)))
    assert red is not None
    assert red.sum() == 100
    assert load_mask(Sample(tmp_path / "x.png", "c", "test")) is None


def test_mask_is_turned_with_its_exif_rotated_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown upright after a quarter turn clockwise
    picture(tmp_path / "x.jpg", (40, 30), exif=exif)
    lying = mask(tmp_path / "m.png", (0, 0, 8, 8), (40, 30))
    turned = load_mask(Sample(tmp_path / "x.jpg", "c", "test", masks=(lying,)), (30, 40))
    assert turned is not None
    assert turned.shape == (40, 30)
    assert place_of_mask(turned) == "upper right"


def test_a_broken_mask_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_text("no mask")
    with pytest.raises(InputError, match=r"m\.png cannot be read"):
        load_mask(Sample(tmp_path / "x.png", "c", "test", masks=(tmp_path / "m.png",)))


# --- registry -------------------------------------------------------------------------------------------------------


def test_unknown_formats_and_paths_say_what_exists(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no data set"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="layout of no known data set"):
        open_dataset(tmp_path)
    with pytest.raises(InputError) as unknown:
        open_dataset(tmp_path, format="imagenet")
    assert all(name in str(unknown.value) for name in READERS)
    picture(tmp_path / "c" / "train" / "good" / "a.png")
    with pytest.raises(InputError, match="has not the layout of 'visa'"):
        open_dataset(tmp_path, format="visa")


def test_data_hash_changes_with_the_data(mvtec: Path) -> None:
    before = open_dataset(mvtec).data_hash("nut")
    assert before == open_dataset(mvtec).data_hash("nut")
    picture(mvtec / "nut" / "test" / "good" / "new.png")
    assert before != open_dataset(mvtec).data_hash("nut")


# --- real images ----------------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize("group", ["dev", "train"])
def test_real_images_agree_with_their_index(data_root: Path, index_rows: list[dict[str, str]], group: str) -> None:
    dataset = open_dataset(data_root / group)
    samples = {s.image.resolve(): s for s in dataset.samples()}
    rows = [row for row in index_rows if row["group"] == group]
    assert len(samples) == len(rows)
    for row in rows:
        sample = samples[(data_root / row["path"]).resolve()]
        assert (sample.category, sample.split, sample.defect) == (row["category"], row["split"], row["defect"])
        assert (sample.mask_kind or "") == row["mask_kind"]
        assert bool(sample.reference) == bool(row["reference"])
    assert dataset.problems == []


@pytest.mark.data
def test_real_masks_say_where(data_root: Path) -> None:
    dataset = open_dataset(data_root / "dev" / "screw")
    marked = [sample for sample in dataset.samples(split="test") if sample.masks]
    assert len(marked) == 36
    assert all(place_of_sample(sample) for sample in marked)


def test_real_solar_cells_are_recognised(elpv: dict[str, list[Path]]) -> None:
    root = elpv["mono good"][0].parents[1]
    assert detect_format(root) == "elpv"
    assert detect_format(root.parent) == "elpv"
    counts = {name: len(files) for name, files in elpv.items()}
    samples = list(open_dataset(root).samples("mono"))
    assert sum(not s.anomalous for s in samples) == counts["mono good"]
    assert sum(bool(s.anomalous) for s in samples) == counts["mono bad"]
