"""Pictures that a pack is taught with: kept by content, checked before anything is written."""

from __future__ import annotations

import os
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sage_ad.knowledge import FactStore
from sage_ad.knowledge.looks.naming import looks_of
from sage_ad.knowledge.looks.pictures import Look, add_looks, looks_folder, read_looks, remove_look
from sage_ad.vlm.errors import InputError


def picture(path: Path, level: int) -> Path:
    Image.new("RGB", (40, 30), (level, level, level)).save(path)
    return path


def test_what_is_added_is_read_back(tmp_path: Path) -> None:
    add_looks("textiles", "woven cloth", [picture(tmp_path / "good.png", 200)], defect=None)
    stain = picture(tmp_path / "a.png", 90)
    add_looks("textiles", "woven cloth", [stain], defect="oil stain", boxes=[(1, 2, 10, 12)], source="line 3")
    good, bad = read_looks(looks_folder("textiles"))
    assert (good.defect, good.product, good.file.split("/")[0]) == (None, "woven cloth", "good")
    assert (bad.defect, bad.box, bad.source) == ("oil stain", (1, 2, 10, 12), "line 3")
    assert (looks_folder("textiles") / bad.file).read_bytes() == stain.read_bytes()


def test_a_pack_that_was_only_shown_pictures_is_a_pack(tmp_path: Path) -> None:
    """An inspection that finds its product by its looks asks the store for the pack's facts."""
    add_looks("hinges", "door hinge", [picture(tmp_path / "a.png", 90)], defect="dent")
    add_looks("textiles", "cloth", [picture(tmp_path / "b.png", 80)], defect="stain")
    packs = FactStore.open().packs()
    assert [product.name for product in packs["hinges"].products] == ["door hinge"]
    assert len(packs["textiles"].products) > 1, "a pack that came with SAGE keeps its own head"


def test_the_same_picture_counts_once(tmp_path: Path) -> None:
    first, copy = picture(tmp_path / "a.png", 90), picture(tmp_path / "copy.png", 90)
    added = add_looks("textiles", "cloth", [first, copy], defect="stain")
    assert (len(added.new), added.known) == (1, [copy])


def test_one_picture_is_not_two_things(tmp_path: Path) -> None:
    stain = picture(tmp_path / "a.png", 90)
    add_looks("textiles", "cloth", [stain], defect="stain")
    other = picture(tmp_path / "b.png", 80)
    for defect, product in ((None, "cloth"), ("stain", "bottle")):
        with pytest.raises(InputError, match=r"'stain' of 'cloth' already"):
            add_looks("textiles", product, [other, stain], defect=defect)
    assert [path.stem for path in looks_folder("textiles").glob("*/*.png")] == [
        Path(look.file).stem for look in read_looks(looks_folder("textiles"))
    ], "nothing is written where one picture is refused"


def test_a_picture_is_known_under_every_name_of_its_product(tmp_path: Path) -> None:
    stain = picture(tmp_path / "a.png", 90)
    names = next(product.names for product in FactStore.open().packs()["textiles"].products if len(product.names) > 1)
    add_looks("textiles", names[0], [stain], defect="stain")
    assert add_looks("textiles", names[1], [stain], defect="stain").known == [stain]


def test_a_hyphen_makes_no_other_product_but_a_digit_does(tmp_path: Path) -> None:
    add_looks("magnets", "MG-20", [picture(tmp_path / "a.png", 90)], defect=None)
    assert [len(looks_of("magnets", name)) for name in ("mg 20", "MG20", "MG-21", "MG-2")] == [1, 1, 0, 0]


def test_what_a_picture_shows_can_be_said_anew(tmp_path: Path) -> None:
    first, other = picture(tmp_path / "a.png", 90), picture(tmp_path / "b.png", 80)
    add_looks("textiles", "cloth", [first, other], defect="stain")
    for defect, box in (("hole", None), ("hole", (1, 2, 10, 12)), (None, None)):
        added = add_looks("textiles", "cloth", [first], defect=defect, boxes=[box], replace=True)
        assert len(added.new) == 1
        looks = read_looks(looks_folder("textiles"))
        assert sorted((str(look.defect), look.box) for look in looks) == sorted([("stain", None), (str(defect), box)])
    assert add_looks("textiles", "cloth", [first], defect=None, replace=True).known == [first]
    kept = {path.name for path in looks_folder("textiles").glob("*/*.png")}
    assert len(kept) == 2, "a picture that is shown as something else does not lie there twice"


def test_a_picture_can_be_taken_out_again(tmp_path: Path) -> None:
    add_looks("textiles", "cloth", [picture(tmp_path / "a.png", 90)], defect="stain")
    (look,) = read_looks(looks_folder("textiles"))
    assert remove_look("textiles", look.file) == look
    assert read_looks(looks_folder("textiles")) == []
    assert not (looks_folder("textiles") / look.file).exists()
    for file in (look.file, "../pack.yaml"):
        with pytest.raises(InputError, match="holds no picture"):
            remove_look("textiles", file)
    with pytest.raises(InputError, match="holds no picture"):
        remove_look("never-taught", look.file)


def test_a_file_that_is_no_picture_stops_before_anything_is_written(tmp_path: Path) -> None:
    text = tmp_path / "b.png"
    text.write_text("no picture")
    with pytest.raises(InputError, match=r"b\.png"):
        add_looks("textiles", "cloth", [picture(tmp_path / "a.png", 90), text], defect="stain")
    assert read_looks(looks_folder("textiles")) == []


@pytest.mark.parametrize("name", ["", "good", " - "])
def test_a_defect_needs_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="name of a defect"):
        add_looks("textiles", "cloth", [picture(tmp_path / "a.png", 90)], defect=name)


def test_a_product_has_no_control_characters(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="control characters"):
        add_looks("textiles", "clo\x1bth", [picture(tmp_path / "a.png", 90)], defect=None)


def test_a_box_must_lie_in_the_picture(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"40 x 30 pixels"):
        add_looks("textiles", "cloth", [picture(tmp_path / "a.png", 90)], defect="stain", boxes=[(0, 0, 41, 30)])


TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
NAME = st.sampled_from(["no", "null", "1e3", "2026-11-29", "~ a", "- a: b", "a #1", "&a", "'a'"]) | st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=12
).map("a{}".format)
BOX = st.none() | st.tuples(st.integers(0, 19), st.integers(0, 14), st.integers(20, 40), st.integers(15, 30))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.none() | NAME, NAME, BOX, TEXT, st.dates()), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from([None, False, True]),
    st.integers(10, 200),
)
def test_any_list_that_pyyaml_writes_is_read(rows: list[Any], plain: bool, flow: bool | None, width: int) -> None:
    fields = ("defect", "product", "box", "source", "added")
    looks = [dict(zip(fields, row, strict=True)) for row in rows]
    written = [{**look, "file": f"x/{n}.png", "box": look["box"] and list(look["box"])} for n, look in enumerate(looks)]
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "x").mkdir()
        for row in written:
            (Path(place) / row["file"]).touch()
        text = yaml.safe_dump(written, allow_unicode=plain, default_flow_style=flow, width=width)
        (Path(place) / "looks.yaml").write_bytes(text.encode())
        # Compared with what PyYAML reads back: it folds a next-line character (U+0085) that it wrote itself to a space.
        assert read_looks(Path(place)) == [
            Look(**{**row, "box": row["box"] and tuple(row["box"]), "added": row["added"].isoformat()})
            for row in yaml.safe_load(text)
        ]


@settings(max_examples=20, deadline=None)
@given(NAME, NAME, BOX, TEXT)
def test_any_words_that_are_taught_are_read_back_by_pyyaml(defect: str, product: str, box: Any, source: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        os.environ["SAGE_HOME"] = place  # set back by the fixture of all tests
        add_looks("hinges", product, [picture(Path(place) / "a.png", 90)], defect=defect, boxes=[box], source=source)
        (look,) = read_looks(looks_folder("hinges"))
        (row,) = yaml.safe_load((looks_folder("hinges") / "looks.yaml").read_bytes())
        assert (look.defect, look.product, look.box, look.source) == (" ".join(defect.split()), product, box, source)
        assert (row["defect"], row["product"], row.get("source", "")) == (look.defect, product, source)
        assert date.fromisoformat(look.added) == date.fromisoformat(row["added"])


def test_a_list_that_points_outside_the_pack_is_refused(tmp_path: Path) -> None:
    folder = looks_folder("textiles")
    folder.mkdir(parents=True)
    (folder / "looks.yaml").write_text("- {file: ../../../secret.png, product: cloth}\n")
    with pytest.raises(InputError, match="below the pack's looks folder"):
        read_looks(folder)
