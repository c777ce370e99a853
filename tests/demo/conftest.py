"""What the demo's tests share: a trace that is quick to make, and the real page in a real browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from plates import plate
from visitors import CHROMIUM_FLAGS, HOSTILE, PATIENCE, Server, Visitor

from sage_ad.demo.services.pictures import Shown, heat_layer, webp
from sage_ad.evaluation.inspection import (
    Candidate,
    InspectionTrace,
    MLEScore,
    TraceAnswer,
    TraceFact,
    TraceRegion,
    TraceStep,
)


@pytest.fixture
def trace() -> InspectionTrace:
    """A trace as an inspection gives it, with hostile text wherever text can come from outside."""
    fact = TraceFact(
        id="0123456789abcdef", text="A gash is bright.", kind="appearance", source="/srv/x/manual.pdf, page 3",
        status="proposed", score=0.5,
    )  # fmt: skip
    other = fact.model_copy(update={"id": "f" * 16, "text": HOSTILE, "source": HOSTILE})
    answer = TraceAnswer(
        question="Is it free of defects?", family="standard comparison", verdict=False,
        text="No. A gash is bright. It should be looked at.", facts=[fact.id],
        mle=MLEScore(
            localisation=2, unscored="no gold", basis="self-check", deductions=["localisation 2/5: no place is named"]
        ),
    )  # fmt: skip
    unscored = TraceAnswer(
        question=HOSTILE, family="defect diagnosis", verdict=None, text=HOSTILE, facts=[other.id],
        mle=MLEScore(unscored="the judge was silent"),
    )  # fmt: skip
    return InspectionTrace(
        image="/srv/uploads/plate.png", references=["/srv/uploads/good.png"], product=HOSTILE, domain="machining",
        anomaly_score=0.6, threshold=0.4, threshold_from="references", threshold_reason="From the good part.",
        verdict="anomalous", confidence=0.9, confidence_reason="From the distance.", defect="scratch",
        regions=[
            TraceRegion(box=(8, 8, 32, 26), place="upper left", score=0.7, description="bright line, 24 x 3 px"),
            TraceRegion(box=(60, 70, 64, 74), place="lower right", score=0.5, description="dark spot, 4 x 4 px"),
        ],
        cited=[fact.id, other.id],
        explanation=f"The part is anomalous.\nUpper left: bright line, 24 x 3 px.\n{HOSTILE}\nA gash is bright.\n"
        "What to do: rework it.\nHow sure: 0.90.",
        candidates=[
            Candidate(name="scratch", probability=0.8, source="looks", reason="like 3 of your 3 examples"),
            Candidate(name=HOSTILE, source="looks", probability=0.4, reason="like 1 of your 3 examples"),
        ],
        answers=[answer, unscored],
        facts=[fact, other], warnings=[HOSTILE], model="sage-tiny", seconds=1.5,
        steps=[
            TraceStep(name="perceive", seconds=0.5, summary=HOSTILE),
            TraceStep(name="recall", seconds=0.1, summary="2 facts"),
        ],
    )  # fmt: skip


@pytest.fixture
def pictures(tmp_path: Path) -> Shown:
    """Pictures that belong to the trace."""
    image = Image.open(plate(tmp_path / "plate.png", True, 1))
    evidence = np.zeros((96, 96), np.float32)
    evidence[8:26, 8:32] = 0.9
    heat = webp(heat_layer(evidence, 0.4))
    return Shown(webp(image), webp(Image.open(plate(tmp_path / "good.png", False, 2))), heat, (96, 96), 1)


@pytest.fixture
def originals(tmp_path: Path) -> list[Path]:
    """The uploaded files that belong to the trace."""
    return [plate(tmp_path / "plate.png", True, 1), plate(tmp_path / "good.png", False, 2)]


# -- the real page -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo as a user starts it, once for all tests; MCP tools included."""
    with served("", tmp_path_factory) as started:
        yield started


@contextmanager
def served(fault: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo in a process of its own, after some lines of Python that break it on purpose."""
    home, log = tmp_path_factory.mktemp("demo-home"), tmp_path_factory.mktemp("demo-log") / "log.txt"
    environment = {**os.environ, "SAGE_HOME": str(home), "SAGE_DEMO_PASSWORD": ""}
    command = [sys.executable, "-c", f"{fault}\nfrom sage_ad.demo.cli import main; main()", "--port", "0", "--mcp"]
    with log.open("w") as errors, subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found, f"the demo did not start: {log.read_text()[-2000:]}"
            yield Server(found.group(0), home, log)
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """The distribution's Chromium, headless; ended with the module, because Playwright's loop forbids any other."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield started
        started.close()


@pytest.fixture
def arrive(browser: Any, server: Server) -> Iterator[Callable[..., Visitor]]:
    """Opens the page as a new visitor; at the end nothing may have failed, asked elsewhere, or run foreign script."""
    visitors: list[Visitor] = []
    contexts = []

    def opened(width: int = 1600, height: int = 1000, **settings: Any) -> Visitor:
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **settings)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        visitor = Visitor(context.new_page(), server)
        page = visitor.page
        page.on("pageerror", lambda error: visitor.faults.append(f"script error: {error}"))
        page.on("dialog", lambda dialog: (visitor.faults.append("a foreign script ran"), dialog.dismiss()))
        page.on(
            "request",
            lambda request: (
                visitor.faults.append(f"asked elsewhere: {request.url[:100]}")
                if not request.url.startswith((server.url, "data:", "blob:"))
                else None
            ),
        )
        page.goto(server.url)
        page.locator("#examples img").first.wait_for()
        visitors.append(visitor)
        return visitor

    yield opened
    for context in contexts:
        context.close()
    assert [visitor.faults for visitor in visitors] == [[] for _ in visitors]


DRAWN = """() => [...document.images].every(image => {
    const {top, width} = image.getBoundingClientRect();
    return image.complete || !width || top > innerHeight; })"""
"""Every picture in view has arrived (those further down are loaded when they come into view)."""


SETTLED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""The page has been laid out for its new size."""


@pytest.fixture
def photograph() -> Callable[[Visitor, str], None]:
    """Looks at the page at three widths: nothing may stick out. `$SAGE_SCREENSHOTS` gets pictures, light and dark."""
    shots = os.environ.get("SAGE_SCREENSHOTS")

    def taken(visitor: Visitor, name: str) -> None:
        page = visitor.page
        for dark in (False, True) if shots else (False,):
            page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
            for width, height in ((390, 844), (800, 1180), (1600, 1000)):
                page.set_viewport_size({"width": width, "height": height})
                page.wait_for_function(DRAWN)
                page.evaluate(SETTLED)
                if shots:
                    file = Path(shots) / f"{name}-{width}-{'dark' if dark else 'light'}.png"
                    # Colours that are still fading from one theme to the other would look like a fault of the page.
                    page.screenshot(path=file, full_page=True, animations="disabled")
                assert not visitor.narrowest_fault(), f"{name} at {width}: {visitor.narrowest_fault()}"
        page.evaluate("document.body.classList.remove('dark')")

    return taken
