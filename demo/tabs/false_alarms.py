"""The false-alarm slider of the Inspect tab: the threshold that keeps a promise, instead of the built-in rule's.

Split conformal prediction (`evaluation.reports.calibration`): some good parts serve as references, the others are scored like
new parts, and the threshold is a quantile of their scores. With few good parts only high rates can be promised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from sage_ad.demo.services import safety
from sage_ad.demo.services.engine import Engine
from sage_ad.demo.view import render
from sage_ad.evaluation.reports.calibration import conformal_threshold, needed_normals
from sage_ad.vlm.errors import InputError, SageError


class FalseAlarmPanel:
    """Slider, button and result; shown when an inspection had several good parts."""

    def __init__(self, engine: Engine, run: gr.State) -> None:
        self.engine, self.run = engine, run
        with gr.Accordion(
            "Choose how many false alarms to accept", open=False, visible=False, elem_id="alarms"
        ) as self.group:
            self.slider = gr.Slider(
                1, 50, value=20, step=1, label="False alarms that you accept, in 100 good parts", elem_id="alarm-rate",
                buttons=[],
            )  # fmt: skip
            self.go = gr.Button("Find the threshold that keeps this promise", elem_id="alarm-go", size="md")
            self.result = gr.HTML(elem_id="alarm-result", padding=True)
        self.outputs = [self.group, self.slider, self.result]

    def wire(self, token: gr.BrowserState) -> None:
        """Connects slider, button and result: the rate that stands there when the page comes needs the button.

        One listener for both: two would run side by side, and the older answer could come last.
        """
        gr.on(
            [self.slider.input, self.go.click], self.calibrate, [self.slider, self.run, token], self.result,
            trigger_mode="always_last", show_progress="minimal", api_visibility="private",
        )  # fmt: skip

    def hidden(self) -> dict[Any, Any]:
        """The panel put away."""
        return {self.group: gr.Accordion(visible=False), self.result: ""}

    def offered(self, references: int) -> dict[Any, Any]:
        """The panel as it stands after an inspection with so many good parts."""
        if references < 2:
            return self.hidden()
        # The lowest rate that so many good parts can promise.
        rate = math.ceil(100 / (references - split_goods(references) + 1))
        return {self.group: gr.Accordion(visible=True), self.slider: gr.Slider(value=rate), self.result: ""}

    def calibrate(self, percent: float, run: str, token: Any, request: gr.Request) -> Iterator[str]:
        """Scores the good parts once per run, then answers at once for any rate."""
        owner = safety.owner_of(token, request)
        runs = self.engine.runs
        try:
            scores = runs.beside(owner, run, "alarms")
            if scores is None:
                image, *goods = (Path(path) for path in runs.beside(owner, run, "uploads") or [])
                if not all(path.is_file() for path in (image, *goods)):
                    raise InputError("The uploaded pictures were deleted in the meantime; inspect the part again.")
                work = lambda: calibration_scores(self.engine, image, goods)  # noqa: E731
                for event in self.engine.queue.submit(owner, work):
                    if event["event"] == "scores":
                        scores = event
                    elif event["event"] == "scored":
                        text = f"Scoring good parts: {event['done']} of {event['of']}"
                        yield render.notice_html(text, "plain")
                runs.keep_beside(owner, run, "alarms", scores)
            assert scores is not None
            yield alarm_html(scores, percent / 100)
        except SageError as error:
            yield render.notice_html(str(error))


def split_goods(count: int) -> int:
    """How many of the good parts serve as references: a quarter (at least one); the others calibrate."""
    return max(1, count // 4)


def calibration_scores(engine: Engine, image: Path, goods: list[Path]) -> Iterator[dict[str, Any]]:
    """Scores the part and the spare good parts against the same references.

    Yields:
        {"event": "scored", "done", "of"} for each picture, then {"event": "scores", "score", "normals"}.
    """
    from sage_ad.vlm.images import load_image, shared_brightness

    resources = engine.inspector().resources
    kept = split_goods(len(goods))
    brightness = shared_brightness([image, *goods])
    bank = resources.extractor.prepare([load_image(path, brightness=brightness) for path in goods[:kept]])
    normals: list[float] = []
    for done, path in enumerate(goods[kept:], start=1):
        normals.append(float(resources.extractor.extract(load_image(path, brightness=brightness), bank).score))
        yield {"event": "scored", "done": done, "of": len(goods) - kept}
    score = float(resources.extractor.extract(load_image(image, brightness=brightness), bank).score)
    yield {"event": "scores", "score": score, "normals": normals}


def alarm_html(scores: dict[str, Any], rate: float) -> str:
    """What follows at this rate, or why nothing can be promised."""
    normals, score = scores["normals"], scores["score"]
    values = {"rate": rate, "score": score, "count": len(normals), "as_high": sum(own >= score for own in normals)}
    try:
        threshold = conformal_threshold(normals, rate)
    except InputError as error:
        return render.fragment("alarm", threshold=None, refused=str(error), needed=needed_normals(rate), **values)
    return render.fragment("alarm", threshold=threshold, refused="", needed=needed_normals(rate), **values)
