"""Teaching by showing in a real browser: from a past run, from an inspection, and from a set of pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plates import plate
from visitors import EXAMPLES, Visitor

from sage_ad.knowledge.looks.pictures import add_looks, read_looks

Box = tuple[int, int, int, int]
GASH, HOLE = (4, 4, 36, 30), (62, 38, 82, 58)
"""Where they are on a plate of 96 x 96 pixels."""


def give(visitor: Visitor, part: Path, product: str, *goods: Path) -> None:
    """Fills the fields of the Inspect tab and inspects."""
    page = visitor.page
    page.locator("#part input[type=file]").set_input_files(part)
    page.wait_for_function("name => document.querySelector('#part img')?.src.includes(name)", arg=part.name)
    if goods:
        page.locator("#references input[type=file]").set_input_files(goods)
        page.locator("#references img").first.wait_for()
    page.locator("#product textarea, #product input").fill(product)
    visitor.inspect()


def on_screen(region: Any, x: int, y: int) -> tuple[float, float]:
    """A pixel of a plate as the browser shows it."""
    region.scroll_into_view_if_needed()
    frame = region.bounding_box()
    return frame["x"] + x * frame["width"] / 96, frame["y"] + y * frame["height"] / 96


def drag(visitor: Visitor, field: str, box: Box) -> None:
    """Marks a region of a plate with the mouse."""
    region, mouse = visitor.page.locator(f"{field} .sg-stack"), visitor.page.mouse
    mouse.move(*on_screen(region, *box[:2]))
    mouse.down()
    mouse.move(*on_screen(region, *box[2:]), steps=4)
    mouse.up()


def marked(visitor: Visitor, field: str, box: Box | None) -> None:
    """Waits until the field holds this box, to a pixel, or none."""
    visitor.page.wait_for_function(
        """([field, box]) => [...document.querySelectorAll(field + " input")].every(
            (edge, i) => box ? edge.value !== "" && Math.abs(edge.value - box[i]) <= 1 : edge.value === "")""",
        arg=[field, box],
    )


def test_a_defect_taught_from_a_past_run_is_a_candidate_for_the_next_part(
    arrive: Callable[..., Visitor], photograph: Callable[..., None], tmp_path: Path
) -> None:
    visitor = arrive()
    page = visitor.page
    first, second = tmp_path / "cell-17.jpg", tmp_path / "cell-18.jpg"
    for path in (first, second):  # two files of one part: the second one is named like the first, whatever was measured
        path.write_bytes((EXAMPLES / "cell-test.jpg").read_bytes())
    give(visitor, first, "widget of line 9", EXAMPLES / "cell-good-1.jpg")
    assert "hairline" not in page.locator("#verdict").inner_text()
    for folder in Path(tempfile.gettempdir()).glob("sage-demo-uploads-*"):
        for upload in folder.rglob(first.name):
            upload.unlink()

    visitor.open_tab("Runs")
    page.locator("#runs-found label").filter(has_text="cell-17.jpg").click()
    page.locator("#runs-teach button").first.click()
    page.click("#runs-learn")
    page.locator("#runs-told").get_by_text("The defect is not named").wait_for()
    page.locator("#runs-name input").fill("hairline crack")
    page.keyboard.press("Tab")
    page.click("#runs-learn")
    page.locator("#runs-told").get_by_text("No domain is chosen").wait_for()
    page.locator("#runs-new textarea, #runs-new input").fill("line-9")
    page.click("#runs-learn")
    page.locator("#runs-told .sg-notice-done").filter(has_text="1 hairline crack").wait_for()
    assert "teach a second kind" in page.locator("#runs-told").inner_text()
    photograph(visitor, "teach-run")

    # A good part teaches, too: the next inspection needs no reference of its own.
    visitor.open_tab("Inspect")
    give(visitor, EXAMPLES / "cell-good-1.jpg", "widget of line 9")
    page.locator("#inspect-teach button").first.click()
    page.locator("#inspect-shows").get_by_text("a good part").click()
    page.locator("#inspect-name").wait_for(state="hidden")
    page.click("#inspect-learn")
    page.locator("#inspect-told .sg-notice-done").filter(has_text="1 hairline crack, 1 good").wait_for()

    page.locator("#references [aria-label='Clear'], #references button[title='Clear']").first.click()
    give(visitor, second, "widget of line 9")
    names = page.locator("#verdict .sg-names")
    names.wait_for()
    assert "hairline crack" in names.inner_text()
    assert "from the good parts" in page.locator("#verdict .sg-scale").inner_text()


def test_sets_of_pictures_are_taught_and_one_is_taken_out_again(
    arrive: Callable[..., Visitor], photograph: Callable[..., None], tmp_path: Path
) -> None:
    visitor = arrive()
    page = visitor.page
    visitor.open_tab("Knowledge")
    page.get_by_role("tab", name="Teach by pictures").click()
    page.click("#looks-learn")
    page.locator("#looks-told").get_by_text("no picture to learn from").wait_for()
    pictures = [plate(tmp_path / f"plate-{number}.png", True, number) for number in range(3)]
    page.locator("#looks-pictures input[type=file]").set_input_files(pictures)
    page.locator("#looks-pictures button.thumbnail-item").nth(2).wait_for()
    page.locator("#looks-name input").fill("gash")
    page.keyboard.press("Tab")
    page.locator("#looks-product textarea, #looks-product input").fill("plate")
    page.locator("#looks-new textarea, #looks-new input").fill("plates")
    page.click("#looks-learn")
    page.locator("#looks-told .sg-notice-done").filter(has_text="3 gash").wait_for()
    shown = page.locator("#looks-shown button.thumbnail-item")
    shown.nth(2).wait_for()
    photograph(visitor, "looks")
    shown.first.click()
    page.click("#looks-remove")
    page.locator("#looks-told").get_by_text("no longer shown as gash").wait_for()
    page.wait_for_function("document.querySelectorAll('#looks-shown button.thumbnail-item').length === 2")

    # A name that a card of the pack has in other words is kept as the card's own.
    page.locator("#looks-pictures input[type=file]").set_input_files(plate(tmp_path / "plate-9.png", True, 9))
    page.locator("#looks-pictures button.thumbnail-item").first.wait_for()
    page.locator("#looks-name input").fill("Scratches")
    page.keyboard.press("Tab")
    page.locator("#looks-product textarea, #looks-product input").fill("gauge plate")
    page.locator("#looks-new textarea, #looks-new input").fill("machining")
    page.click("#looks-learn")
    told = page.locator("#looks-told .sg-notice-done").filter(has_text="1 scratch")
    told.wait_for()
    assert "kept under 'scratch'" in told.inner_text()


def test_where_a_defect_is_can_be_marked_by_mouse_touch_and_number_and_taken_back(
    arrive: Callable[..., Visitor], photograph: Callable[..., None], tmp_path: Path
) -> None:
    pictures = [plate(tmp_path / f"plate-{number}.png", True, number) for number in range(10, 13)]
    visitor = arrive()
    page, field = visitor.page, "#looks-region"
    visitor.open_tab("Knowledge")
    page.get_by_role("tab", name="Teach by pictures").click()
    page.locator("#looks-pictures input[type=file]").set_input_files(pictures)
    page.locator(f"{field} img").wait_for()
    drag(visitor, field, HOLE)
    marked(visitor, field, HOLE)
    page.locator(field).get_by_role("button", name="Undo").click()
    marked(visitor, field, None)
    drag(visitor, field, GASH)
    marked(visitor, field, GASH)
    page.locator("#looks-marks").get_by_text("Picture 1 of 3; marked in 1").wait_for()
    page.locator("#looks-pictures button.thumbnail-item").nth(1).click()
    page.locator("#looks-marks").get_by_text("Picture 2 of 3").wait_for()
    marked(visitor, field, None)
    for x, y in (GASH[2:], GASH[:2]):
        page.mouse.click(*on_screen(page.locator(f"{field} .sg-stack"), x, y))
    marked(visitor, field, GASH)
    page.locator(field).get_by_label("Right").fill("40")
    page.keyboard.press("Tab")
    page.locator("#looks-marks").get_by_text("marked in 2").wait_for()
    photograph(visitor, "region")
    page.locator("#looks-name input").fill("gash")
    page.keyboard.press("Tab")
    page.locator("#looks-product textarea, #looks-product input").fill("plate")
    page.locator("#looks-new textarea, #looks-new input").fill("marked-plates")
    page.click("#looks-learn")
    page.locator("#looks-told .sg-notice-done").filter(has_text="3 gash").wait_for()
    page.locator(f"{field} img").wait_for(state="hidden")
    boxes = [look.box for look in read_looks(visitor.server.home / "domains" / "marked-plates" / "looks")]
    assert boxes[2] is None
    for box, meant in zip(boxes, (GASH, (*GASH[:2], 40, GASH[3])), strict=False):
        assert box == pytest.approx(meant, abs=1)

    other = arrive(has_touch=True)
    other.open_tab("Knowledge")
    other.page.get_by_role("tab", name="Teach by pictures").click()
    other.page.set_viewport_size({"width": 390, "height": 844})
    other.page.locator("#looks-pictures input[type=file]").set_input_files(pictures[0])
    other.page.locator(f"{field} img").wait_for()
    for x, y in (HOLE[:2], HOLE[2:]):
        other.page.touchscreen.tap(*on_screen(other.page.locator(f"{field} .sg-stack"), x, y))
    marked(other, field, HOLE)


def test_a_region_that_is_pointed_at_is_named_by_what_was_taught_and_taught_in_place_of_what_was_found(
    arrive: Callable[..., Visitor], photograph: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = arrive()
    page = visitor.page
    monkeypatch.setenv("SAGE_HOME", str(visitor.server.home))
    for name, box in (("gash", GASH), ("clogged hole", HOLE)):
        pictures = [plate(tmp_path / f"{name}-{number}.png", True, len(name) + number) for number in range(2)]
        add_looks("line-4", "plate of line 4", pictures, defect=name, boxes=[box] * 2)
    part, good = (plate(tmp_path / f"part-{bad}.png", bad, 30) for bad in (True, False))
    give(visitor, part, "plate of line 4", good)
    page.locator("#inspect-teach button").first.click()
    for name, box in (("gash", GASH), ("clogged hole", HOLE)):
        drag(visitor, "#inspect-region", box)
        page.locator("#inspect-like").get_by_text(f"most likely {name}").wait_for()
    assert page.locator("#inspect-places input:checked").count() == 0
    photograph(visitor, "teach-region")
    page.locator("#inspect-name input").fill("clogged hole")
    page.keyboard.press("Tab")
    page.click("#inspect-learn")
    page.locator("#inspect-told .sg-notice-done").filter(has_text="3 clogged hole").wait_for()
    taught = read_looks(visitor.server.home / "domains" / "line-4" / "looks")[-1]
    assert taught.box == pytest.approx(HOLE, abs=1)
