"""The Folder tab in a real browser: parts without a good one, compared with one another, the odd one first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from plates import plate
from visitors import Visitor


def test_parts_of_a_folder_judge_one_another(
    arrive: Callable[..., Visitor], photograph: Callable[..., None], tmp_path: Path
) -> None:
    visitor = arrive()
    page = visitor.page
    visitor.open_tab("Folder")
    page.click("#folder")
    page.locator("#fld-message .sg-notice-problem").filter(has_text="no part to inspect").wait_for()

    parts = [plate(tmp_path / f"part-{number}.png", number == 3, number) for number in range(8)]
    page.locator("#fld-parts input[type=file]").set_input_files(parts)
    page.locator("#fld-parts").get_by_text("part-7").first.wait_for()
    page.click("#folder")
    page.locator("#fld-report").wait_for()
    result = page.locator("#fld-result")
    assert "Judged by the other parts of this batch" in result.inner_text()
    assert result.locator(".sg-parts > li").count() == 8
    first = result.locator(".sg-parts > li").first
    assert "part-3.png" in first.inner_text()
    assert "Anomalous" in first.inner_text()
    assert first.locator(".sg-box").count() >= 1
    first.locator("summary").click()
    assert "px" in first.inner_text(), "the measured description stands in the explanation"
    photograph(visitor, "folder")
    with page.expect_download() as download:
        page.click("#fld-report button, button#fld-report")
    assert "part-3.png" in Path(download.value.path()).read_text(encoding="utf-8")
