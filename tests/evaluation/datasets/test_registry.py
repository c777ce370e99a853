"""Readers: every layout on small trees made here, real files that are worse than layouts, and the real images."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import disc, mask, picture

from sage_ad.evaluation.datasets import load_mask, open_dataset, place_of_sample, places_of_mask
from sage_ad.evaluation.datasets.registry import READERS, detect_format
from sage_ad.evaluation.datasets.sample import Sample
from sage_ad.vlm.errors import InputError


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
    assert places_of_mask(marked)[0] == "upper right"
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
