"""`Progress`: what a viewer knows of an inspection at any moment, built up from its events and rendered part by part."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sage_ad.demo.services.fair_queue import Event
from sage_ad.demo.services.pictures import Shown
from sage_ad.evaluation.inspection import InspectionTrace

STEPS = {
    "perceive": "looks at the part and compares it",
    "recall": "recalls facts of the domain",
    "extract": "writes facts itself where none are known",
    "fuse": "chooses the facts that reach the answer",
    "answer": "answers in words",
    "evaluate": "judges its own answers",
}
"""The steps of the agent as the page names them, in order."""


@dataclass
class StepLine:
    """One line of the list of steps; `state` is "ahead", "now", "done" or "passed over"."""

    name: str
    purpose: str
    state: str = "ahead"
    seconds: float | None = None
    summary: str = ""


@dataclass
class Progress:
    """Events in, state of the page out.

    Attributes:
        uid: prefix of the anchors on the page, unique on it.
        steps: what was done, is being done, and is still ahead.
        wording: what the language model has written so far, before it was checked.
        answers: (question, text) as they come.
        pictures, trace: when there are any.
        waiting: how many are served before; None once work has begun.
        note: what the viewer should know while nothing happens.
    """

    uid: str
    steps: list[StepLine] = field(default_factory=lambda: [StepLine(*item) for item in STEPS.items()])
    wording: str = ""
    answers: dict[str, str] = field(default_factory=dict)
    pictures: Shown | None = None
    trace: InspectionTrace | None = None
    waiting: int | None = None
    note: str = ""

    def feed(self, event: Event) -> set[str]:
        """Takes one event in; returns which parts of the page changed ("steps", "pictures", "answers", "trace")."""
        kind = event["event"]
        if kind == "waiting":
            self.waiting = event["ahead"]
            self.note = f"{event['ahead']} before you." if event["ahead"] else "You are next."
            return {"steps"}
        self.waiting = None
        self.note = ""
        if kind == "loading":
            self.note = "The model is being loaded, once; this takes a few seconds."
            return {"steps"}
        if kind == "started":
            return self._started(event["step"])
        if kind == "step":
            return self._done(event["step"])
        if kind == "token":
            self.wording += event["text"]
            return {"answers"}
        if kind == "answer":
            self.answers[event["question"]] = event["text"]
            return {"answers"}
        if kind == "pictures":
            self.pictures = event["pictures"]
            return {"pictures"}
        if kind == "trace":
            self.trace = event["trace"]
            self.wording = ""
            self._close_steps()
            return {"steps", "answers", "trace", "pictures"}
        return set()

    def finished(self, trace: InspectionTrace, pictures: Shown) -> Progress:
        """The same for an inspection that was kept: everything is there at once."""
        self.pictures, self.trace = pictures, trace
        for step in trace.steps:
            if step.name in STEPS:
                self._started(step.name)
                self._done(step.model_dump())
        self._close_steps()
        return self

    def _line(self, name: str, state: str) -> StepLine | None:
        return next((line for line in self.steps if line.name == name and line.state == state), None)

    def _started(self, name: str) -> set[str]:
        if name not in STEPS:  # the review by an expert is not asked for here
            return set()
        line = self._line(name, "ahead")
        if line is None:  # a failed score sent the agent back: the steps are gone through once more
            line = StepLine(name, STEPS[name])
            self.steps.append(line)
        before = self.steps.index(line)
        for earlier in self.steps[:before]:
            if earlier.state == "ahead":
                earlier.state = "passed over"
        line.state = "now"
        return {"steps"}

    def _done(self, step: dict[str, Any]) -> set[str]:
        line = self._line(step["name"], "now")
        if line is None:
            return set()
        line.state, line.seconds, line.summary = "done", step["seconds"], step["summary"]
        return {"steps"}

    def _close_steps(self) -> None:
        for line in self.steps:
            if line.state in ("ahead", "now"):
                line.state = "passed over"
