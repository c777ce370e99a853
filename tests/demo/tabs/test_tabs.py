"""The other tabs in a real browser: compare, teach, rank, and find past runs again."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from visitors import HOSTILE, Visitor

from sage_ad.evaluation.ranked import read_ranked

MANUAL = f"""# Solar cells of line 7

A cold solder joint on a solar cell appears as a dark band beside the busbar in the electroluminescence image.
A cell with a cold solder joint loses power and grows a hot spot under load.
A finger interruption on a solar cell appears as a dark stripe between two neighbouring fingers {HOSTILE}.
"""


def test_two_ways_are_compared_side_by_side(arrive: Callable[..., Visitor], photograph: Callable[..., None]) -> None:
    visitor = arrive()
    page = visitor.page
    visitor.open_tab("Compare")
    visitor.choose_example(2, "#cmp-examples", "#cmp-part", go="compare")
    page.get_by_label("With and without facts").check()
    page.click("#compare")
    page.locator("#cmp-table tbody tr").first.wait_for()
    assert page.locator("#cmp-left .sg-verdict").count() == 1
    assert page.locator("#cmp-right .sg-verdict").count() == 1
    table = page.locator("#cmp-table").inner_text()
    for name in ("With facts", "Without facts", "Verdict", "confidence", "objections of the self-check"):
        assert name in table
    assert page.locator("#cmp-left .sg-answer").count() == 0, "nothing was asked"
    assert page.locator("#cmp-right .sg-fact").count() == 0
    photograph(visitor, "compare")
    page.get_by_label("With and without good parts").check()
    page.locator("#cmp-references [aria-label='Clear'], #cmp-references button[title='Clear']").first.click()
    page.click("#compare")
    page.locator("#cmp-message .sg-notice-problem").wait_for()
    assert "no good part to leave out" in page.locator("#cmp-message").inner_text()


MOVED_AND_GONE_ON = """async () => {
  const button = (row, by) => document.querySelectorAll(`#rank-order [data-by="${by}"]`)[row];
  button(0, 1).click();
  document.querySelector('#rank-better textarea').focus();
  await new Promise(resolve => setTimeout(resolve, 300));
  const focused = document.activeElement.tagName;
  button(1, -1).click();
  await new Promise(resolve => setTimeout(resolve, 300));
  return focused;
}"""
FOCUSED = "row => document.activeElement.closest('li') === document.querySelectorAll('#rank-order li')[row]"


def test_a_document_becomes_facts_that_an_expert_judges(
    arrive: Callable[..., Visitor], photograph: Callable[..., None], tmp_path: Path
) -> None:
    visitor = arrive()
    page = visitor.page
    manual = tmp_path / "line-7.md"
    manual.write_text(MANUAL, encoding="utf-8")
    visitor.open_tab("Knowledge")
    page.get_by_role("tab", name="Add a document").click()
    page.locator("#kb-files input[type=file]").set_input_files(manual)
    page.locator("#kb-files").get_by_text("line-7").first.wait_for()
    page.get_by_label("Or a new domain").fill("line-7")
    page.click("#kb-add")
    page.locator("#new-found label").first.wait_for()
    assert page.locator("#kb-arrival .sg-step-done").count() >= 7
    assert str(visitor.server.home) not in page.locator("#kb-arrival").inner_text()
    # The new facts are judged where they arrive: after each the next one is shown.
    arrived = page.locator("#new-found label")
    assert arrived.count() >= 2
    arrived.first.click()
    page.locator("#new-fact .sg-chip-proposed").wait_for()
    photograph(visitor, "add-document")
    text = page.locator("#new-fact .sg-big").inner_text()
    page.locator("#new-edit button").first.click()
    page.locator("#new-defects textarea, #new-defects input").fill("cold joint")
    page.click("#new-save")
    page.locator("#new-fact .sg-source").filter(has_text="cold joint").wait_for()
    page.click("#new-reject")
    page.locator("#new-note").get_by_text("rejected now").wait_for()
    assert page.locator("#new-fact .sg-big").inner_text() != text
    assert page.locator("#new-fact .sg-chip-approved, #new-fact .sg-chip-rejected").count() == 0
    assert arrived.filter(has_text="rejected").count() == 1

    page.get_by_role("tab", name="Find and judge").click()
    page.locator("#kb-words textarea, #kb-words input").fill("cold solder joint dark band beside the busbar")
    page.click("#kb-find")
    found = page.locator("#kb-found label")
    found.first.wait_for()
    found.filter(has_text="cold solder joint").filter(has_text="line-7").first.click()
    fact = page.locator("#kb-fact .sg-onefact")
    fact.wait_for()
    assert "line-7.md" in fact.inner_text()
    assert "proposed" in fact.inner_text()
    page.click("#kb-approve")
    page.locator("#kb-fact .sg-chip-approved").wait_for()
    page.locator("#kb-edit button").first.click()
    page.locator("#kb-text textarea").fill(f"A cold joint looks dark {HOSTILE}")
    page.click("#kb-save")
    page.locator("#kb-note").get_by_text("reads like an order to a model").wait_for()
    assert "<img src=x" in page.locator("#kb-note").inner_text()
    page.locator("#kb-text textarea").fill("A cold joint looks dark.")
    page.click("#kb-save")
    page.locator("#kb-fact .sg-big").filter(has_text="A cold joint looks dark.").wait_for()
    photograph(visitor, "knowledge")
    page.click("#kb-reject")
    page.locator("#kb-fact .sg-chip-rejected").wait_for()

    page.get_by_role("tab", name="Statistics").click()
    page.locator("#kb-statistics").get_by_text("Line 7").first.wait_for()
    photograph(visitor, "statistics")


def test_answers_are_ranked_and_the_run_is_found_exported_and_deleted(
    arrive: Callable[..., Visitor], photograph: Callable[..., None], tmp_path: Path
) -> None:
    visitor = arrive()
    page = visitor.page
    visitor.choose_example(2)
    visitor.inspect()

    visitor.open_tab("Rank")
    page.locator("#rank-picture img").first.wait_for()
    page.click("#rank-make")
    rows = page.locator("#rank-order li")
    rows.first.wait_for()
    before = page.locator(".sg-order-text").all_inner_texts()
    assert len(before) == 4
    assert len(set(before)) == 4
    rows.nth(3).get_by_role("button", name="up").click()
    page.wait_for_function("text => document.querySelectorAll('.sg-order-text')[2].innerText === text", arg=before[3])
    page.wait_for_function(FOCUSED, arg=2)  # the list is drawn; what is typed before is overwritten
    rows.nth(2).locator("input").fill("1")
    page.keyboard.press("Tab")
    page.wait_for_function("text => document.querySelectorAll('.sg-order-text')[0].innerText === text", arg=before[3])
    page.wait_for_function(FOCUSED, arg=0)
    rows.nth(3).drag_to(rows.nth(1))
    page.wait_for_function("text => document.querySelectorAll('.sg-order-text')[1].innerText === text", arg=before[2])
    assert page.evaluate(MOVED_AND_GONE_ON) == "TEXTAREA", "the list takes the focus from a field that is typed into"
    page.locator("#rank-better textarea").fill("The capsule has a brown stain on its right half.")
    photograph(visitor, "rank")
    page.click("#rank-save")
    page.locator("#rank-saved .sg-notice-done").wait_for()
    with page.expect_download() as download:
        page.click("#rank-download button, button#rank-download")
    download.value.save_as(tmp_path / "rankings.zip")
    with zipfile.ZipFile(tmp_path / "rankings.zip") as bundle:
        bundle.extractall(tmp_path / "rankings")
    (line,) = read_ranked(tmp_path / "rankings" / "ranked.jsonl")
    assert line.answers[0] == "The capsule has a brown stain on its right half."
    assert [" ".join(text.split()) for text in (before[3], before[2], before[0], before[1])] == line.answers[1:]
    assert line.rank_source == "expert"
    assert line.image is not None
    assert (tmp_path / "rankings" / line.image).is_file()

    visitor.open_tab("Runs")
    run = page.locator("#runs-found label").first
    run.wait_for()
    run.click()
    page.locator("#runs-shown .sg-verdict").wait_for()
    photograph(visitor, "runs")
    with page.expect_download() as download:
        page.click("#runs-report button, button#runs-report")
    assert download.value.suggested_filename.endswith(".html")
    page.locator("#runs-words textarea, #runs-words input").fill("no such word anywhere")
    page.locator("#runs-note .sg-notice").filter(has_text="No runs found").wait_for()
    page.locator("#runs-delete").wait_for(state="hidden")  # it would act on a run that is no longer listed
    page.locator("#runs-words textarea, #runs-words input").fill("capsule")
    page.locator("#runs-found label").first.click()
    page.click("#runs-delete")
    page.click("#runs-keep")
    page.click("#runs-delete")
    page.click("#runs-really")
    page.locator("#runs-shown .sg-notice-done").wait_for()
    page.reload()
    visitor.open_tab("Runs")
    page.locator("#runs-note .sg-notice").filter(has_text="No runs").wait_for()


def test_a_browser_finds_its_runs_again_and_no_other_does(arrive: Callable[..., Visitor]) -> None:
    visitor = arrive()
    visitor.choose_example(1)
    visitor.inspect()
    visitor.page.reload()
    visitor.open_tab("Runs")
    visitor.page.locator("#runs-found label").first.wait_for()
    other = arrive()
    other.open_tab("Runs")
    other.page.locator("#runs-note .sg-notice").filter(has_text="No runs").wait_for()
