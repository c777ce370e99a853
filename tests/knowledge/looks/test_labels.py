"""Labels of other tools, as these really write them: moved pictures, uploads, turned boxes, nothing said."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from plates import plate

from sage_ad.knowledge.looks.labels import UNNAMED, LabelledPicture, add_labelled, label_studio
from sage_ad.knowledge.looks.labels import coco as coco_file
from sage_ad.knowledge.looks.pictures import add_looks, looks_folder, read_looks
from sage_ad.knowledge.store.packs import Pack, Term
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.images import pages_of


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / "home"))


def task(image: str, *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"data": {"image": image}, "annotations": [{"result": list(results), **more}]}


def rectangle(name: str, x: float, y: float, width: float, height: float, rotation: float = 0) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation, "rectanglelabels": [name]}
    return {"type": "rectanglelabels", "original_width": 96, "original_height": 96, "value": value}


def add(tmp_path: Path, value: Any) -> Any:
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(value), encoding="utf-8")
    return add_labelled("machining", "plate", file, pictures=tmp_path / "parts")


def test_labels_are_kept_under_the_names_of_the_cards(tmp_path: Path) -> None:
    plate(tmp_path / "parts" / "p0.png", True, 0)
    two = task("p0.png", rectangle("gashes", 0, 0, 10, 10), rectangle("Cut", 50, 25, 25, 50))
    (tmp_path / "labels.json").write_text(json.dumps([two]), encoding="utf-8")
    pack = Pack(name="machining", defects=(Term(name="gash", synonyms=("cut",)),))
    found = add_labelled("machining", "plate", tmp_path / "labels.json", pack=pack, pictures=tmp_path / "parts")
    assert [look.defect for look in found.added.new] == ["gash"]
    assert [note.split(" is ")[0] for note in found.notes] == ["'gashes'", "'Cut'"]


def test_an_export_of_label_studio(tmp_path: Path) -> None:
    for number in range(5):
        plate(tmp_path / "parts" / "day" / f"p{number}.png", True, number)
    good = {"type": "choices", "value": {"choices": ["Good"]}}
    found = add(
        tmp_path,
        [
            task("/data/upload/3/0a1b2c3d-p0.png", rectangle("gash", 0, 0, 10, 10), rectangle("gash", 50, 25, 25, 50)),
            task("/data/local-files/?d=elsewhere/day/p1.png", rectangle("gash", 50, 50, 25, 12.5, rotation=90)),
            task("p2.png", good),
            task("p3.png", rectangle("gash", 0, 0, 9, 9), rectangle("dent", 0, 0, 9, 9)),
            task("p4.png", was_cancelled=True),
        ],
    )
    looks = read_looks(looks_folder("machining"))
    # The largest box counts; a turned one is the upright one around it.
    assert sorted((look.defect or "", look.box) for look in looks if look.defect) == [
        ("gash", (36, 48, 48, 72)),
        ("gash", (48, 24, 72, 72)),
    ]
    assert [look.box for look in looks if look.defect is None] == [None]
    assert any("several names" in note for note in found.notes)
    assert any("not labelled by anybody" in note for note in found.notes)


def coco(name: str, box: list[float]) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": name, "width": 96, "height": 96}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": box}],
        "categories": [{"id": 3, "name": "gash"}],
    }


def test_a_coco_file_with_a_box_over_the_edge(tmp_path: Path) -> None:
    plate(tmp_path / "parts" / "p.png", True, 1)
    add(tmp_path, coco("images/p.png", [-3.0, 80.2, 20.0, 30.0]))
    assert read_looks(looks_folder("machining"))[0].box == (0, 80, 17, 96)


@pytest.mark.parametrize("written", [coco_file, label_studio])
def test_a_page_of_a_stack_becomes_a_picture_of_its_own(tmp_path: Path, written: Any) -> None:
    pages = [Image.new("RGB", (40, 32), colour) for colour in ("red", "green", "blue")]
    stack = tmp_path / "parts" / "stack.tif"
    stack.parent.mkdir()
    pages[0].save(stack, save_all=True, append_images=pages[1:])
    value: Any = written([LabelledPicture(f"{stack}#page=2", (40, 32), [("dent", (3, 4, 10, 12))])])
    if isinstance(value, list):
        value[0]["annotations"] = [{"result": value[0]["predictions"][0]["result"]}]
    add(tmp_path, value)
    (look,) = read_looks(looks_folder("machining"))
    assert (look.defect, look.box) == ("dent", (3, 4, 10, 12))
    with Image.open(looks_folder("machining") / look.file) as picture:
        assert picture.getpixel((0, 0)) == (0, 128, 0)
    deep = [Image.fromarray(np.full((40, 32), level, np.uint16)) for level in (100, 900)]
    deep[0].save(stack, save_all=True, append_images=deep[1:])
    with pytest.raises(InputError, match="more than 8 bits"):
        add_looks("machining", "plate", pages_of(stack), defect=None)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (coco("q.png", [1, 1, 5, 5]), "q.png is not there"),
        (coco("twice.png", [1, 1, 5, 5]), "stands for 2 files"),
        ({**coco("p.png", [1, 1, 5, 5]), "annotations": []}, "no named label"),
        ({**coco("p.png", [1, 1, 5, 5]), "categories": []}, "damaged"),
        ([{"image": "p.png"}], "neither COCO"),
        ({}, "neither COCO"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path: Path, value: Any, said: str) -> None:
    for name in ("p.png", "a/twice.png", "b/twice.png"):
        plate(tmp_path / "parts" / name, True, 1)
    with pytest.raises(InputError, match=said):
        add(tmp_path, value)
    assert read_looks(looks_folder("machining")) == []


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=40).filter(
    lambda name: re.search(r"\w", name) and name.casefold().strip() not in ("good", UNNAMED)
)
FILES = st.text(st.sampled_from("abz0 %+#&?=äß零;'-_.()[]"), min_size=1, max_size=30).map(lambda name: f"p{name}.png")


@settings(max_examples=40, deadline=None)
@given(NAMES, FILES, st.data())
def test_what_is_exported_is_read_back(label: str, name: str, data: st.DataObject) -> None:
    wide, high = (data.draw(st.integers(16, 400)) for _ in "xy")
    left, top = data.draw(st.integers(0, wide - 1)), data.draw(st.integers(0, high - 1))
    box = (left, top, data.draw(st.integers(left + 1, wide)), data.draw(st.integers(top + 1, high)))
    with tempfile.TemporaryDirectory() as place:
        picture = Path(place) / "parts" / name
        picture.parent.mkdir()
        noise = np.random.default_rng(0).integers(0, 255, (high, wide, 3), np.uint8)
        Image.fromarray(noise).save(picture)
        found = LabelledPicture(str(picture), (wide, high), [(label, box)])
        (task,) = label_studio([found])
        task["annotations"] = task.pop("predictions")  # as a person accepts them
        for number, value in enumerate((coco_file([found]), [task], coco_file([replace(found, image=name)]))):
            os.environ["SAGE_HOME"] = f"{place}/home{number}"  # set back by the fixture
            add(Path(place), value)
            (look,) = read_looks(looks_folder("machining"))
            assert (look.defect, look.box) == (" ".join(label.split()), box)


@pytest.mark.parametrize("size", [(48, 48), (96, 192)])
def test_a_picture_resized_since_it_was_labelled_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    plate(tmp_path / "parts" / "p.png", True, 1)
    Image.open(tmp_path / "parts" / "p.png").resize(size).save(tmp_path / "parts" / "p.png")
    with pytest.raises(InputError, match="but was labelled with 96 x 96; give the pictures that were labelled"):
        add(tmp_path, coco("p.png", [1, 1, 5, 5]))


def test_a_task_with_other_fields_before_its_picture_and_one_turned_while_labelling(tmp_path: Path) -> None:
    for number in range(2):
        plate(tmp_path / "parts" / f"p {number}.png", True, number)
    first = task("", rectangle("gash", 0, 0, 50, 50))
    first["data"] = {"id": 7, "lot": "A.12", "photo": "/data/upload/1/0a1b2c3d-p%200.png"}
    turned = task("p 1.png", rectangle("gash", 0, 0, 50, 50) | {"image_rotation": 90})
    found = add(tmp_path, [first, turned])
    assert [look.box for look in read_looks(looks_folder("machining"))] == [(0, 0, 48, 48)]
    assert any("turned in Label Studio" in note for note in found.notes)


@pytest.mark.parametrize("box", [[0, 0, 5, math.nan], [0, 0, math.inf, 5]])
def test_a_box_of_no_numbers_is_one_sentence(tmp_path: Path, box: list[float]) -> None:
    plate(tmp_path / "parts" / "p.png", True, 1)
    with pytest.raises(InputError, match="no number"):
        add(tmp_path, coco("p.png", box))


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "//[.png", "a\x00b.png", "http://[::1/p.png"])
def test_an_odd_address_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "parts").mkdir()
    with pytest.raises(InputError, match="is not there"):
        add(tmp_path, coco(name, [1, 1, 5, 5]))
