"""Layouts that people bring: read as they are meant, or refused with what was found; no picture is passed over."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import disc, mask, picture

from sage_ad.evaluation.datasets import InspectionDataset, load_mask, open_dataset, place_of_sample
from sage_ad.vlm.errors import InputError


def counted(dataset: InspectionDataset) -> dict[tuple[str, str], int]:
    """Number of images by split and defect."""
    return dict(Counter((sample.split, sample.defect) for sample in dataset.samples()))


def pictures(folder: Path, *names: str, ending: str = "png") -> None:
    for name in names:
        picture(folder / f"{name}.{ending}")


def named(dataset: InspectionDataset) -> str:
    return "\n".join(map(str, dataset.problems))


class TestClassFoldersInSplits:
    def test_splits_directly_in_the_root(self, tmp_path: Path) -> None:
        """As the casting set and those of torchvision's ImageFolder come."""
        root = tmp_path / "casting_data"
        pictures(root / "train" / "ok_front", "a", "b")
        pictures(root / "train" / "def_front", "c")
        pictures(root / "test" / "ok_front", "d")
        pictures(root / "test" / "def_front", "e", "f")
        dataset = open_dataset(root)
        assert (dataset.format, dataset.categories) == ("mvtec", ["casting_data"])
        assert counted(dataset) == {
            ("train", "good"): 2,
            ("train", "def_front"): 1,
            ("test", "good"): 1,
            ("test", "def_front"): 2,
        }
        assert len(dataset.normals("casting_data")) == 2

    @pytest.mark.parametrize("name", ["val", "valid", "validation"])
    def test_validation_images_test_where_nothing_else_does(self, tmp_path: Path, name: str) -> None:
        pictures(tmp_path / "set" / "train" / "good", "a")
        pictures(tmp_path / "set" / name / "good", "b")
        pictures(tmp_path / "set" / name / "bad", "c")
        assert counted(open_dataset(tmp_path / "set")) == {
            ("train", "good"): 1,
            ("test", "good"): 1,
            ("test", "bad"): 1,
        }
        pictures(tmp_path / "set" / "test" / "bad", "d")
        assert counted(open_dataset(tmp_path / "set")) == {
            ("train", "good"): 2,
            ("train", "bad"): 1,
            ("test", "bad"): 1,
        }

    @pytest.mark.parametrize("names", [("0", "1"), ("negative", "positive"), ("Negative", "Positive")])
    def test_pairs_of_names_are_said(self, tmp_path: Path, names: tuple[str, str]) -> None:
        for name in names:
            pictures(tmp_path / "part" / "test" / name, "a")
        pictures(tmp_path / "part" / "train" / names[0], "a")
        dataset = open_dataset(tmp_path)
        assert counted(dataset) == {("train", "good"): 1, ("test", "good"): 1, ("test", names[1]): 1}
        assert any(f"{names[0]!r} is taken for that of the good parts" in note for note in dataset.notes)

    def test_names_that_say_nothing_are_refused_with_what_was_found(self, tmp_path: Path) -> None:
        for name in ("A", "B"):
            pictures(tmp_path / "part" / "test" / name, "a")
        with pytest.raises(InputError, match=r"no folder of good parts.*: A, B; call the folder of good parts 'good'"):
            open_dataset(tmp_path)
        (tmp_path / "part" / "train" / "good").mkdir(parents=True)
        assert counted(open_dataset(tmp_path)) == {("test", "A"): 1, ("test", "B"): 1}

    def test_only_the_chosen_categories_are_asked(self, tmp_path: Path) -> None:
        pictures(tmp_path / "a" / "train" / "good", "x")
        pictures(tmp_path / "b" / "train" / "lot 7", "x")
        assert open_dataset(tmp_path, categories=["a"]).categories == ["a"]
        with pytest.raises(InputError, match="lot 7"):
            open_dataset(tmp_path)

    def test_dated_folders_below_the_classes(self, tmp_path: Path) -> None:
        part = tmp_path / "part"
        for place in ("train/good", "test/good", "test/crack"):
            pictures(part / place, "x")
            pictures(part / place / "2024-05-02", "x", "y")
        disc(part / "ground_truth" / "crack" / "2024-05-02" / "y_mask.png")
        disc(part / "ground_truth" / "crack" / "x_mask.png")
        dataset = open_dataset(tmp_path)
        assert counted(dataset) == {("train", "good"): 3, ("test", "good"): 3, ("test", "crack"): 3}
        masks = {sample.id: sample.masks for sample in dataset.samples() if sample.masks}
        assert {key: [path.name for path in paths] for key, paths in masks.items()} == {
            "part/test/crack/2024-05-02/y.png": ["y_mask.png"],
            "part/test/crack/x.png": ["x_mask.png"],
        }
        assert dataset.problems == []

    def test_whatever_is_not_read_is_named(self, tmp_path: Path) -> None:
        part = tmp_path / "set" / "part"
        pictures(part / "train" / "good", "a")
        pictures(part / "test" / "good", "b")
        pictures(part / "test" / "hole" / "masks", "c")  # masks beside the images
        pictures(part / "test" / "hole", "c")
        pictures(part / "test", "loose")
        pictures(part / "extra" / "good", "d")
        pictures(tmp_path / "set" / "leftover", "e")
        dataset = open_dataset(tmp_path / "set")
        assert counted(dataset) == {("train", "good"): 1, ("test", "good"): 1, ("test", "hole"): 1}
        text = named(dataset)
        assert "leftover: this folder holds pictures, but no category" in text
        assert "part/extra: this folder is none of" in text
        assert "part/test: 1 pictures lie in no class folder (loose.png, ...)" in text
        assert "part/test/hole/masks: this folder is called like one of masks" in text

    def test_a_picture_of_several_pages_is_named(self, tmp_path: Path) -> None:
        pictures(tmp_path / "part" / "train" / "good", "a")
        pages = [Image.new("L", (40, 30), level) for level in (1, 2)]
        pages[0].save(tmp_path / "part" / "train" / "good" / "b.tif", save_all=True, append_images=pages[1:])
        dataset = open_dataset(tmp_path)
        assert counted(dataset) == {("train", "good"): 1}
        assert "b.tif: the image holds 2 pictures" in named(dataset)


class TestOtherLayouts:
    def test_mvtec_ad_2(self, tmp_path: Path) -> None:
        root = tmp_path / "vial"
        pictures(root / "train" / "good", "000_regular")
        pictures(root / "validation" / "good", "000_regular")
        pictures(root / "test_public" / "good", "000_regular")
        pictures(root / "test_public" / "bad", "001_regular", "002_regular")
        pictures(root / "test_private", "000_regular", "001_regular")
        disc(root / "test_public" / "ground_truth" / "bad" / "001_regular_mask.png")
        dataset = open_dataset(tmp_path)
        assert dataset.format == "ad2"
        assert counted(dataset) == {("train", "good"): 2, ("test", "good"): 1, ("test", "bad"): 2}
        bad = [sample for sample in dataset.samples() if sample.anomalous]
        assert [sample.mask_kind for sample in bad] == ["pixel", None]
        assert place_of_sample(bad[0]) == "centre"
        assert dataset.notes == ["vial: the 2 pictures of test_private have no published label and are left out."]
        assert dataset.problems == []

    def test_mvtec_3d(self, tmp_path: Path) -> None:
        root = tmp_path / "bagel"
        for place in ("train/good", "validation/good", "test/good", "test/hole"):
            pictures(root / place / "rgb", "000")
            pictures(root / place / "xyz", "000", ending="tiff")
            mask(root / place / "gt" / "000.png", (0, 0, 5, 5) if place == "test/hole" else (0, 0, 0, 0))
        dataset = open_dataset(tmp_path)
        assert dataset.format == "mvtec3d"
        assert counted(dataset) == {("train", "good"): 2, ("test", "good"): 1, ("test", "hole"): 1}
        (bad,) = [sample for sample in dataset.samples() if sample.anomalous]
        assert place_of_sample(bad) == "upper left"
        assert "height maps (xyz) are left out" in dataset.notes[0]
        assert dataset.problems == []

    def test_dagm(self, tmp_path: Path) -> None:
        for split in ("Train", "Test"):
            pictures(tmp_path / "Class1" / split, "0001", "0002", ending="PNG")
            mask(tmp_path / "Class1" / split / "Label" / "0002_label.PNG", (30, 20, 40, 30))
            (tmp_path / "Class1" / split / "Label" / "Labels.txt").write_text("1\n")
        dataset = open_dataset(tmp_path)
        assert dataset.format == "dagm"
        assert counted(dataset) == {(split, kind): 1 for split in ("train", "test") for kind in ("good", "defect")}
        bad = [sample for sample in dataset.samples("Class1", "test") if sample.anomalous]
        assert [place_of_sample(sample) for sample in bad] == ["lower right"]
        assert bad[0].mask_kind == "box"  # rough ellipses
        assert dataset.problems == []
        assert open_dataset(tmp_path / "Class1").categories == ["Class1"]

    def test_kolektor_2(self, tmp_path: Path) -> None:
        root = tmp_path / "KolektorSDD2"
        for split in ("train", "test"):
            pictures(root / split, "10000", "10001", "10002")
            mask(root / split / "10000_GT.png", (0, 0, 0, 0))
            mask(root / split / "10001_GT.png", (0, 20, 5, 30))
        dataset = open_dataset(root)
        assert dataset.format == "kolektor"
        assert counted(dataset) == {(split, kind): 1 for split in ("train", "test") for kind in ("good", "defect")}
        assert {place_of_sample(sample) for sample in dataset.samples() if sample.anomalous} == {"lower left"}
        assert named(dataset).count("10002.png: the mask of this image is missing") == 2

    def test_kolektor_1(self, tmp_path: Path) -> None:
        for item in ("kos01", "kos02"):
            pictures(tmp_path / item, "Part0", "Part1", ending="jpg")
            mask(tmp_path / item / "Part0_label.bmp", (0, 0, 0, 0))
            mask(tmp_path / item / "Part1_label.bmp", (0, 20, 5, 30))
        assert counted(open_dataset(tmp_path)) == {("train", "good"): 1, ("test", "good"): 1, ("test", "defect"): 2}

    @pytest.mark.parametrize("lists", ["", "realiad_jsons"])
    def test_real_iad(self, tmp_path: Path, lists: str) -> None:
        place = tmp_path / "realiad_1024" / "toy" if lists else tmp_path / "toy"
        pictures(place / "OK" / "S0001", "a", "b", ending="jpg")
        pictures(place / "NG" / "HS" / "S0002", "c", ending="jpg")
        mask(place / "NG" / "HS" / "S0002" / "c.png", (30, 0, 40, 8))
        good = {"category": "toy", "anomaly_class": "OK", "mask_path": None}
        value = {
            "meta": {"normal_class": "OK", "prefix": "toy/"},
            "train": [{**good, "image_path": "OK/S0001/a.jpg"}],
            "test": [
                {**good, "image_path": "OK/S0001/b.jpg"},
                {
                    "anomaly_class": "HS",
                    "image_path": "NG/HS/S0002/c.jpg",
                    "mask_path": "NG/HS/S0002/c.png",
                },
                {"anomaly_class": "HS"},
            ],
        }
        (tmp_path / lists).mkdir(exist_ok=True)
        (tmp_path / lists / "toy.json").write_text(json.dumps(value))
        dataset = open_dataset(tmp_path)
        assert dataset.format == "realiad"
        assert counted(dataset) == {("train", "good"): 1, ("test", "good"): 1, ("test", "scratch"): 1}
        assert [place_of_sample(s) for s in dataset.samples() if s.anomalous] == ["upper right"]
        assert named(dataset) == "toy.json: test record 3 names no image_path"

    def test_class_folders_without_a_split(self, tmp_path: Path) -> None:
        pictures(tmp_path / "set" / "良品", "a", "b", "c")
        pictures(tmp_path / "set" / "scratch", "d", "e")
        disc(tmp_path / "set" / "masks" / "scratch" / "d.png")
        dataset = open_dataset(tmp_path / "set")
        assert dataset.format == "folders"
        assert counted(dataset) == {("train", "good"): 2, ("test", "good"): 1, ("test", "scratch"): 2}
        assert [bool(sample.masks) for sample in dataset.samples() if sample.anomalous] == [True, False]
        assert dataset.notes == ["set has no split, so every second good image is kept for testing."]
        assert dataset.problems == []

    def test_products_of_class_folders(self, tmp_path: Path) -> None:
        for product in ("nut", "bolt"):
            pictures(tmp_path / product / "OK parts", "a", "b")
            pictures(tmp_path / product / "NG parts", "c")
        dataset = open_dataset(tmp_path)
        assert (dataset.format, dataset.categories) == ("folders", ["bolt", "nut"])
        assert sum(counted(dataset).values()) == 6

    def test_unknown_layouts_say_what_was_found(self, tmp_path: Path) -> None:
        pictures(tmp_path / "line 1", "a")
        pictures(tmp_path / "line 2", "a")
        with pytest.raises(InputError, match=r"it has the folders line 1, line 2\); arrange it like MVTec AD"):
            open_dataset(tmp_path)


class TestBoxes:
    def yolo(self, root: Path, arranged: str) -> Path:
        for split in ("train", "valid", "test"):
            images, labels = (
                (root / split / "images", root / split / "labels")
                if arranged == "split first"
                else (root / "images" / split, root / "labels" / split)
            )
            pictures(images, "good", "bad", ending="jpg")
            labels.mkdir(parents=True)
            (labels / "good.txt").write_text("")
            (labels / "bad.txt").write_text("1 0.9 0.1 0.1 0.2\n1 0.8 0.1 0.9 0.1 0.9 0.2\n")
        (root / "data.yaml").write_text("train: ../train/images\nnc: 2\nnames: ['dent', 'crack']\n")
        return root

    @pytest.mark.parametrize("arranged", ["split first", "images first"])
    def test_yolo(self, tmp_path: Path, arranged: str) -> None:
        dataset = open_dataset(self.yolo(tmp_path / "set", arranged))
        assert (dataset.format, dataset.categories) == ("yolo", ["set"])
        assert counted(dataset) == {
            ("train", "good"): 2,
            ("train", "crack"): 2,
            ("test", "good"): 1,
            ("test", "crack"): 1,
        }
        (bad,) = [sample for sample in dataset.samples(split="test") if sample.anomalous]
        assert bad.mask_kind == "box"
        assert bad.boxes == (pytest.approx((34, 0, 38, 6)), pytest.approx((32, 3, 36, 6)))  # of 40 x 30 pixels
        assert place_of_sample(bad) == "upper right"
        assert "dent, crack are taken for defects" in dataset.notes[0]
        assert dataset.problems == []

    def test_yolo_says_what_it_cannot_read(self, tmp_path: Path) -> None:
        root = self.yolo(tmp_path / "set", "split first")
        (root / "train" / "labels" / "bad.txt").write_text("1 400 300 20 20\n")  # pixels in place of shares
        (root / "valid" / "labels" / "bad.txt").unlink()
        (root / "test" / "labels" / "gone.txt").write_text("0 0.5 0.5 0.1 0.1\n")
        dataset = open_dataset(root)
        assert counted(dataset) == {("train", "good"): 3, ("test", "good"): 1, ("test", "crack"): 1}
        text = named(dataset)
        assert "train/labels/bad.txt: line 1 is not: class, x, y, width, height" in text
        assert "train/images/bad.jpg: its boxes could not all be read" in text
        assert "test/labels/gone.txt: these boxes belong to no image" in text
        assert "1 images of valid have no label file and are taken for good." in dataset.notes

    def test_boxes_of_good_parts_are_no_defects(self, tmp_path: Path) -> None:
        root = self.yolo(tmp_path / "set", "split first")
        (root / "data.yaml").write_text("names: {0: dent, 1: ok}\n")
        dataset = open_dataset(root)
        assert {sample.anomalous for sample in dataset.samples()} == {False}
        assert dataset.notes == [
            "The classes dent are taken for defects; images without a box of them are taken for good."
        ]

    def test_yolo_boxes_lie_on_the_upright_image(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        picture(tmp_path / "set" / "train" / "images" / "a.jpg", size=(40, 30), exif=exif)
        (tmp_path / "set" / "train" / "labels").mkdir()
        (tmp_path / "set" / "train" / "labels" / "a.txt").write_text("0 0.5 0.9 1 0.2\n")
        (sample,) = open_dataset(tmp_path / "set").samples()
        assert sample.boxes == (pytest.approx((0, 32, 30, 40)),)
        assert place_of_sample(sample) in ("lower left", "lower centre", "lower right")

    def coco(self, number: int) -> dict[str, object]:
        return {
            "images": [
                {"id": 1, "file_name": "good.jpg", "width": 40, "height": 30},
                {"id": 2, "file_name": "bad.jpg", "width": 40, "height": 30},
            ],
            "annotations": [{"id": number, "image_id": 2, "category_id": 7, "bbox": [30, 20, 8, 8]}],
            "categories": [{"id": 7, "name": "burr"}],
        }

    @pytest.mark.parametrize("arranged", ["beside", "annotations"])
    def test_coco(self, tmp_path: Path, arranged: str) -> None:
        root = tmp_path / "set"
        for number, split in enumerate(("train", "val")):
            images = root / split if arranged == "beside" else root / "images" / f"{split}2017"
            pictures(images, "good", "bad", "extra", ending="jpg")
            path = (
                images / "_annotations.coco.json"
                if arranged == "beside"
                else root / "annotations" / f"instances_{split}2017.json"
            )
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(self.coco(number)))
        dataset = open_dataset(root)
        assert (dataset.format, dataset.categories) == ("coco", ["set"])
        assert counted(dataset) == {(split, kind): 1 for split in ("train", "test") for kind in ("good", "burr")}
        bad = next(sample for sample in dataset.samples() if sample.anomalous)
        assert (bad.boxes, place_of_sample(bad)) == (((30, 20, 38, 28),), "lower right")
        assert "extra.jpg" in named(dataset)

    def test_coco_without_a_box_is_no_good_part(self, tmp_path: Path) -> None:
        value = self.coco(1)
        value["annotations"] = [{"image_id": 2, "category_id": 7, "segmentation": []}]
        pictures(tmp_path, "good", "bad", ending="jpg")
        (tmp_path / "all.json").write_text(json.dumps(value))
        dataset = open_dataset(tmp_path)
        assert counted(dataset) == {("test", "good"): 1}
        assert "annotation 1 has no bbox" in named(dataset)
        assert "bad.jpg: its boxes could not all be read" in named(dataset)


KINDS = (
    *("255", "noise of JPEG in PNG", "a little noise", "class number", "two classes"),
    *("opacity", "opacity over black", "opaque", "16 bits", "1 bit"),
)


class TestMasks:
    def opened(self, tmp_path: Path, drawn: Image.Image, ending: str = "png") -> InspectionDataset:
        part = tmp_path / "part"
        for place in ("train/good", "test/good", "test/hole"):
            picture(part / place / "a.png", (120, 90))
        (part / "ground_truth" / "hole").mkdir(parents=True)
        drawn.save(part / "ground_truth" / "hole" / f"a_mask.{ending}")
        return open_dataset(tmp_path)

    def marked_area(self) -> np.ndarray:
        rows, columns = np.mgrid[:90, :120]
        return (rows - 75) ** 2 + (columns - 100) ** 2 < 80

    def marked(self, dataset: InspectionDataset) -> np.ndarray | None:
        (bad,) = [sample for sample in dataset.samples() if sample.anomalous]
        return load_mask(bad, (120, 90))

    def drawn(self, kind: str) -> Image.Image:
        marked_area = self.marked_area()
        values = marked_area.astype(np.uint8) * 255
        random = np.random.default_rng(0)
        if kind == "255":
            return Image.fromarray(values)
        if kind == "noise of JPEG in PNG":
            noisy = values.astype(int) + random.integers(-12, 13, values.shape)
            return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
        if kind == "a little noise":
            return Image.fromarray(np.where(marked_area, 254, random.integers(0, 3, values.shape)).astype(np.uint8))
        if kind == "class number":
            return Image.fromarray(marked_area.astype(np.uint8) * 3)
        if kind == "two classes":
            values[marked_area & (np.arange(120) < 100)] = 85
            return Image.fromarray(values)
        if kind == "opacity":
            return Image.fromarray(np.dstack([np.full_like(values, 255)] * 3 + [values]))
        if kind == "opacity over black":
            return Image.fromarray(np.dstack([np.zeros_like(values)] * 3 + [values]))
        if kind == "opaque":
            return Image.fromarray(np.dstack([values] * 3 + [np.full_like(values, 255)]))
        if kind == "16 bits":
            return Image.fromarray(marked_area.astype(np.uint16) * 65535)
        return Image.fromarray(values).convert("1")

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_way_of_drawing_is_the_same_mask(self, tmp_path: Path, kind: str) -> None:
        dataset = self.opened(tmp_path, self.drawn(kind))
        assert (self.marked(dataset) == self.marked_area()).all()
        assert [place_of_sample(s) for s in dataset.samples() if s.anomalous] == ["lower right"]
        assert dataset.problems == []

    def test_a_mask_in_jpeg(self, tmp_path: Path) -> None:
        found = self.marked(self.opened(tmp_path, self.drawn("255"), "jpg"))
        assert found is not None
        assert (found != self.marked_area()).mean() < 0.005

    @pytest.mark.parametrize("kind", ["inverted", "all", "white paper"])
    def test_a_mask_of_everything_is_named_and_not_used(self, tmp_path: Path, kind: str) -> None:
        values = np.where(self.marked_area(), 0, 255).astype(np.uint8)
        if kind == "all":
            values[:] = 255
        if kind == "white paper":
            values = np.dstack([values, values, np.full_like(values, 255)])  # the defect in blue
        dataset = self.opened(tmp_path, Image.fromarray(values))
        assert self.marked(dataset) is None
        assert "ground_truth/hole/a_mask.png: the mask marks" in named(dataset)
        assert "inverted" in named(dataset)

    def test_a_mask_of_other_proportions_is_named_and_not_used(self, tmp_path: Path) -> None:
        dataset = self.opened(tmp_path, Image.fromarray(self.marked_area().astype(np.uint8) * 255).resize((120, 45)))
        assert self.marked(dataset) is None
        assert "the mask has 120 x 45 pixels, which are not the proportions of its image (120 x 90)" in named(dataset)

    @pytest.mark.parametrize("size", [(60, 45), (240, 180), (59, 44)])
    def test_a_mask_of_another_scale_is_used(self, tmp_path: Path, size: tuple[int, int]) -> None:
        dataset = self.opened(tmp_path, Image.fromarray(self.marked_area().astype(np.uint8) * 255).resize(size))
        assert [place_of_sample(s) for s in dataset.samples() if s.anomalous] == ["lower right"]
        assert dataset.problems == []

    def test_a_broken_mask_is_named_and_the_image_kept(self, tmp_path: Path) -> None:
        dataset = self.opened(tmp_path, self.drawn("255"))
        (tmp_path / "part" / "ground_truth" / "hole" / "a_mask.png").write_text("no picture")
        assert counted(dataset) == {("train", "good"): 1, ("test", "good"): 1, ("test", "hole"): 1}
        assert "cannot be read" in named(dataset)
