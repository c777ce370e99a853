"""Labels of other tools, as these really write them: moved pictures, uploads, turned boxes, nothing said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from plates import plate

from sage_ad.knowledge.looks.labels import add_labelled
from sage_ad.knowledge.looks.pictures import looks_folder, read_looks
from sage_ad.vlm.errors import InputError


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
