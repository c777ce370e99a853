"""The Inspect tab in a real browser: upload, watch, read, follow a fact to its source, stop, be refused politely."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image
from visitors import EXAMPLES, HOSTILE, Server, Visitor

from sage_ad.demo.services.engine import Engine
from sage_ad.demo.services.settings import DemoSettings
from sage_ad.demo.tabs.inspect import InspectTab
from sage_ad.knowledge.facts import Fact
from sage_ad.knowledge.store.fact_store import FactStore
from tests.demo.conftest import served


@pytest.fixture
def cell() -> Path:
    """A cracked cell, as a visitor would upload it."""
    return EXAMPLES / "cell-test.jpg"


def test_an_example_is_inspected_to_the_end(
    arrive: Callable[..., Visitor], photograph: Callable[..., None], tmp_path: Path
) -> None:
    visitor = arrive()
    page = visitor.page
    photograph(visitor, "empty")
    visitor.choose_example(1)
    page.click("#inspect")
    page.locator("#evidence .sg-heat").wait_for()
    visitor.finished()

    # The verdict with its explanation stands first; boxes and regions have the same numbers.
    verdict = page.locator("#verdict").inner_text()
    assert "Anomalous" in verdict
    assert "What to do:" in verdict
    assert "was not taught" in verdict
    assert "sage-" not in page.locator("#results").inner_text(), "the page says what to click, not which command to run"
    assert re.search(r"score 0\.\d{3}", verdict)
    assert re.search(r"threshold 0\.\d{3}", verdict)
    assert re.search(r"\d+ %", verdict)
    assert re.search(r"\d+ px long|\d+ x \d+ px", page.locator("#verdict .sg-regions li").first.inner_text())
    boxes = page.locator("#evidence .sg-box").all_inner_texts()
    assert boxes
    assert boxes == page.locator("#verdict .sg-regions a").all_inner_texts()
    assert page.locator("#answers .sg-answer").count() == 0, "nothing was asked"
    assert page.locator("img:not([alt])").count() == 0, "a picture has no text alternative"

    # A picture fills the window, comes closer, and goes back.
    frame = page.locator("#evidence .sg-frame").first
    for state in ("sg-zoomed", "sg-closer"):
        frame.click(position={"x": 9, "y": 9})
        page.locator(f"#evidence .{state}").wait_for()
    page.keyboard.press("Escape")
    page.locator("#evidence .sg-zoomed").wait_for(state="detached")

    # A region is marked in the list and on the picture at once.
    for first, other in (
        ("#verdict .sg-regions li", "#evidence .sg-box"),
        ("#evidence .sg-box", "#verdict .sg-regions li"),
    ):
        page.locator("h1").first.hover()
        page.locator(f"{other}.sg-on").wait_for(state="detached")
        page.locator(first).first.hover()
        page.locator(f"{other}.sg-on").wait_for()

    # Facts and steps are one click away; each fact says where it came from.
    assert not page.locator("#details .sg-fact").first.is_visible()
    page.locator("#details .sg-fold > summary").last.click()
    steps = page.locator("#details .sg-step-done")
    assert steps.count() == 3
    assert all(re.search(r"\d\.\d\d s", text) for text in steps.all_inner_texts())
    page.locator("#details .sg-fold > summary").first.click()
    page.locator("#details .sg-fact summary").first.click()
    fact = page.locator("#details .sg-fact[open]")
    assert "Source" in fact.inner_text()
    assert ".yaml" in fact.inner_text()

    # The slider wipes the marks off the part, from the left.
    half = "getComputedStyle(document.querySelector('#evidence .sg-marks')).clipPath.split(' ').at(-1)"
    before = page.evaluate(half)
    page.locator("#evidence .sg-wipe input").fill("50")
    assert page.evaluate(half) != before
    page.locator("#evidence .sg-wipe input").fill("0")
    photograph(visitor, "inspected")

    with page.expect_download() as download:
        page.click("#report button, button#report")
    report = tmp_path / "report.html"
    download.value.save_as(report)
    text = report.read_text(encoding="utf-8")
    assert "data:image/webp;base64," in text
    assert "Anomalous" in text
    page.goto(report.as_uri())
    page.get_by_label("Lot").fill("L-17")
    assert "Inspection report" in page.locator("h1").inner_text()
    visitor.faults.clear()  # the report itself is not on the server


def test_uploads_questions_and_names_of_ones_own_stay_text(
    arrive: Callable[..., Visitor], cell: Path, tmp_path: Path
) -> None:
    visitor = arrive()
    page = visitor.page
    bad_name = tmp_path / "cell <img src=x onerror=alert(1)>.jpg"
    bad_name.write_bytes(cell.read_bytes())
    page.locator("#part input[type=file]").set_input_files(bad_name)
    page.locator("#part img").first.wait_for()
    page.locator("#references input[type=file]").set_input_files([EXAMPLES / "cell-good-1.jpg"])
    page.locator("#references img").first.wait_for()
    page.locator("#product textarea, #product input").fill(HOSTILE[:110])
    page.locator("#questions textarea").fill(f"Is it free of defects? {HOSTILE}")
    page.locator("#more button").first.click()
    page.get_by_label("Use facts of the knowledge base").uncheck()
    page.get_by_label("Millimetres per pixel").fill("0.1")
    visitor.inspect()
    assert " mm)" in page.locator("#verdict").inner_text()
    assert "onerror=alert(1)" in page.locator("#verdict").inner_text()
    assert "<script>" in page.locator("#answers").inner_text()
    assert page.locator("#answers .sg-answer").count() == 1
    assert page.locator("#verdict img, #answers img, #answers script").count() == 0


CHOSEN_AND_GONE_ON = """() => {
  document.querySelectorAll('#examples button.thumbnail-item')[2].click();
  document.querySelector('#questions textarea').focus();
}"""


def test_a_fact_that_an_answer_cites_opens_by_keyboard(arrive: Callable[..., Visitor], server: Server) -> None:
    limit = Fact(text="A pinhole of at most 2 mm is accepted.", kind="inspection", domain="ceramics", status="approved")
    with FactStore.open(home=server.home) as store:
        store.add([limit])
    visitor = arrive()
    page = visitor.page
    visitor.choose_example(3)
    page.evaluate(CHOSEN_AND_GONE_ON)
    page.wait_for_function("document.querySelector('#product textarea, #product input').value === 'capsule'")
    page.wait_for_timeout(500)
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA", "the focus is taken from what is typed into"
    visitor.choose_example(3)
    page.locator("#questions textarea").fill("How large may a pinhole be?")
    visitor.inspect()
    assert page.locator("#answers .sg-answer").count() == 1
    cite = page.locator("#answers .sg-cite").first
    cite.focus()
    page.keyboard.press("Enter")
    page.locator("#details .sg-fact[open]").wait_for()
    assert "Source" in page.locator("#details .sg-fact[open]").inner_text()


def test_an_inspection_is_stopped(arrive: Callable[..., Visitor]) -> None:
    visitor = arrive()
    page = visitor.page
    visitor.choose_example(3)
    page.locator("#questions textarea").fill("Does this part match the normal standard of its kind?")
    # By the page itself, as soon as it can be: on an idle machine the inspection ends before this process has looked.
    page.evaluate(
        """() => {
            const timer = setInterval(() => {
                const stop = document.querySelector("#stop:not([disabled])");
                if (stop) { clearInterval(timer); stop.click(); }
            }, 5);
        }"""
    )
    page.click("#inspect")
    page.locator("#message .sg-notice").wait_for()
    page.wait_for_timeout(1500)  # Gradio reports the cancelled work as failed, a little later
    assert "Stopped" in page.locator("#message").inner_text()
    page.locator("#inspect:not([disabled])").wait_for()
    assert page.locator("#inspect").inner_text() == "Inspect"
    visitor.open_tab("Runs")
    page.locator("#runs-note .sg-notice").wait_for()
    assert "No runs" in page.locator("#runs-note").inner_text()


def test_bad_uploads_are_refused_in_one_sentence(arrive: Callable[..., Visitor], tmp_path: Path) -> None:
    visitor = arrive()
    page = visitor.page
    page.click("#inspect")
    page.locator("#message .sg-notice-problem").wait_for()
    assert "no picture to inspect" in page.locator("#message").inner_text()

    text, tiny = tmp_path / "notes.png", tmp_path / "tiny.png"
    text.write_text("this is no picture")
    Image.new("RGB", (5, 5)).save(tiny)
    for path, word in ((text, "no picture"), (tiny, "5 x 5")):
        page.locator("#part input[type=file]").set_input_files(path)
        toast = page.locator(".toast-wrap").filter(has_text=word)
        toast.first.wait_for()
        assert path.name in toast.first.inner_text()
        assert str(tmp_path) not in toast.first.inner_text()
        page.locator("#part input[type=file]").wait_for(state="attached")
    page.locator("#references input[type=file]").set_input_files([EXAMPLES / "cell-good-1.jpg", text])
    # The usable picture stays, the other one goes once it was looked at.
    page.wait_for_function("document.querySelectorAll('#references button.thumbnail-item').length === 1")


def test_radiographs_and_deep_pictures_are_shown_and_inspected_as_uploaded(
    arrive: Callable[..., Visitor], cell: Path, tmp_path: Path
) -> None:
    pydicom = pytest.importorskip("pydicom")
    grey = np.asarray(Image.open(cell).convert("L")).astype(np.uint16) * 16
    Image.fromarray(grey).save(tmp_path / "deep.tif")
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = pydicom.uid.generate_uid()
    made.Rows, made.Columns, made.BitsAllocated, made.BitsStored, made.HighBit = *grey.shape, 16, 12, 11
    made.SamplesPerPixel, made.PixelRepresentation, made.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    made.PixelData = grey.tobytes()
    made.save_as(tmp_path / "part.dcm", enforce_file_format=True)
    visitor = arrive()
    page = visitor.page
    for name in ("deep.tif", "part.dcm"):
        if name == "deep.tif":
            page.locator("#part input[type=file]").set_input_files(tmp_path / name)
        else:
            with page.expect_file_chooser() as chooser:
                page.click("#part-other")
            chooser.value.set_files(tmp_path / name)
        page.wait_for_function(
            "name => { const shown = document.querySelector('#part img'); "
            "return shown?.naturalWidth && decodeURIComponent(shown.src).includes(name); }",
            arg=name,
        )
        page.click("#inspect")
        page.locator("#verdict .sg-sub").filter(has_text=name).wait_for()
        visitor.finished()
        page.locator("#details .sg-fold > summary").last.click()
        assert "are read as 0 to 255" in page.locator("#details").inner_text(), "the original's depth is used"


def test_two_browsers_at_once_see_their_own(arrive: Callable[..., Visitor]) -> None:
    visitors = [arrive(), arrive()]
    products = ("solar cell", "capsule")
    for number, visitor in enumerate(visitors):
        visitor.choose_example(number + 1)
    for visitor in visitors:
        visitor.page.click("#inspect")
    for visitor, own, other in zip(visitors, products, reversed(products), strict=True):
        visitor.finished()
        assert own in visitor.page.locator("#verdict").inner_text()
        assert other not in visitor.page.locator("#verdict").inner_text()
        visitor.open_tab("Runs")
        runs = visitor.page.locator("#runs-found label")
        runs.first.wait_for()
        assert runs.count() == 1
        assert own in runs.first.inner_text()


def test_several_good_parts_give_a_false_alarm_slider(
    arrive: Callable[..., Visitor], photograph: Callable[..., None]
) -> None:
    visitor = arrive()
    page = visitor.page
    visitor.choose_example(3)
    visitor.inspect()
    page.locator("#alarms button").first.click()
    page.click("#alarm-go")
    page.locator("#alarm-result .sg-alarm-line").wait_for()
    assert "15 false alarms in 100" in page.locator("#alarm-result").inner_text()
    page.locator("#alarm-rate input[type=number]").fill("2")
    page.keyboard.press("Tab")
    page.locator("#alarm-result .sg-notice").filter(has_text="at least 49").wait_for()
    photograph(visitor, "false-alarms")


def test_a_dark_system_gets_a_dark_page(arrive: Callable[..., Visitor]) -> None:
    assert arrive(color_scheme="dark").page.locator("body.dark").count() == 1
    assert arrive(color_scheme="light").page.locator("body.dark").count() == 0


BROKEN = """
from sage_ad.demo.services.engine import Engine

def submit(*_):
    yield {"event": "started", "step": "perceive"}
    raise RuntimeError("no trace of this may reach the page")

Engine.load = lambda *_: None
Engine.submit = submit
"""


def test_an_error_that_nobody_foresaw_leaves_a_page_that_can_be_used_and_no_uploads(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Uploads go with their server, and those of a server that was killed with the next one's start."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / f"sage-demo-uploads-{ended.pid}-killed"
    own = tmp_path / f"sage-demo-uploads-{os.getpid()}-runs"
    for folder in (left, own):
        folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with served(BROKEN, tmp_path_factory) as server:
        assert not left.exists()
        assert len(list(tmp_path.glob("sage-demo-uploads-*"))) == 2
        visitor = Visitor(browser.new_page(), server)
        page = visitor.page
        page.goto(server.url)
        visitor.choose_example(1)
        for _ in range(2):
            page.click("#inspect")
            page.locator("#message").filter(has_text="was not foreseen").wait_for()
            page.get_by_role("button", name="Inspect", exact=True, disabled=False).wait_for()
        assert "RuntimeError" not in page.content()
        assert "no trace of this" not in page.content()
        assert "no trace of this" in server.log.read_text()
        page.close()
    assert list(tmp_path.glob("sage-demo-uploads-*")) == [own]


def test_an_event_that_changes_nothing_on_the_page_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio ends the work with an error when it is given an empty update."""
    events = [{"event": "started", "step": "perceive"}, {"event": "started", "step": "review"}]
    engine = Engine(DemoSettings())
    monkeypatch.setattr(engine, "submit", lambda *_: iter(events))
    with gr.Blocks():
        tab = InspectTab(engine, gr.BrowserState(""))
    monkeypatch.setattr(tab, "request", lambda *_: None)
    updates = list(tab.inspect(None, None, "", "", "", True, False, "sage-tiny", None, "", gr.Request()))
    assert len(updates) == 3  # begun, perceive, and that there was no result
    assert all(updates)
