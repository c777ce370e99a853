"""Teaching by showing in a real browser: from a past run, from an inspection, and from a set of pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from plates import plate
from visitors import EXAMPLES, Visitor


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


def test_a_defect_taught_from_a_past_run_is_a_candidate_for_the_next_part(
    arrive: Callable[..., Visitor], photograph: Callable[..., None], tmp_path: Path
) -> None:
    visitor = arrive()
    page = visitor.page
    first, second = tmp_path / "cell-17.jpg", tmp_path / "cell-18.jpg"
    for path in (first, second):  # two files of one part: the second one is named like the first, whatever was measured
        path.write_bytes((EXAMPLES / "cell-test.jpg").read_bytes())
    give(visitor, first, "cell of line 9", EXAMPLES / "cell-good-1.jpg")
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
    give(visitor, EXAMPLES / "cell-good-1.jpg", "cell of line 9")
    page.locator("#inspect-teach button").first.click()
    page.locator("#inspect-shows").get_by_text("a good part").click()
    page.locator("#inspect-name").wait_for(state="hidden")
    page.click("#inspect-learn")
    page.locator("#inspect-told .sg-notice-done").filter(has_text="1 hairline crack, 1 good").wait_for()

    page.locator("#references [aria-label='Clear'], #references button[title='Clear']").first.click()
    give(visitor, second, "cell of line 9")
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
