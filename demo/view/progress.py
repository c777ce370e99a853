"""`Progress`: what a viewer knows of an inspection at any moment, built up from its events."""

from __future__ import annotations

from dataclasses import dataclass, field

from sage_ad.demo.services.fair_queue import Event
from sage_ad.demo.services.pictures import Shown
from sage_ad.evaluation.inspection import InspectionTrace

STEPS = {
    "perceive": ("Comparing with good parts", "Compared with good parts"),
    "recall": ("Looking up facts", "Looked up facts"),
    "extract": ("Writing facts, because too few are known", "Wrote facts"),
    "answer": ("Answering the questions", "Answered the questions"),
    "evaluate": ("Checking the answers", "Checked the answers"),
    "report": ("Writing the explanation", "Wrote the explanation"),
}
"""The steps of the agent as the page names them: while they are done, and afterwards."""


@dataclass
class Progress:
    """Events in, state of the page out.

    Attributes:
        uid: prefix of the anchors on the page, unique on it.
        note: what is happening now.
        answers: texts by question, as they are written.
        pictures: when there are any.
        trace: what is known: the verdict once the part was compared, the explanation once it is written, at last all.
        done: whether the inspection has ended.
    """

    uid: str
    note: str = "Waiting for its turn"
    answers: dict[str, str] = field(default_factory=dict)
    pictures: Shown | None = None
    trace: InspectionTrace | None = None
    done: bool = False

    def feed(self, event: Event) -> set[str]:
        """Takes one event in; returns which parts of the page changed ("status", "verdict", "pictures", "answers")."""
        kind = event["event"]
        if kind == "waiting":
            self.note = f"{event['ahead']} before you" if event["ahead"] else "You are next"
            return {"status"}
        if kind == "loading":
            self.note = "Loading the model, once"
            return {"status"}
        if kind == "started" and event["step"] in STEPS:
            self.note = STEPS[event["step"]][0]
            if event["step"] == "answer":  # of a second round the first one's answers are gone
                self.answers.clear()
            return {"status"}
        if kind == "seen":
            self.pictures, self.trace = event["pictures"], event["trace"]
            return {"verdict", "pictures"}
        if kind == "token" and "question" in event:
            self.answers[event["question"]] = self.answers.get(event["question"], "") + event["text"]
            return {"answers"}
        if kind == "answer":
            self.answers[event["question"]] = event["text"]
            return {"answers"}
        if kind == "explanation" and self.trace is not None:
            self.trace = self.trace.model_copy(update={"explanation": event["text"]})
            return {"verdict"}
        if kind == "trace":
            self.trace, self.done = event["trace"], True
            return {"status", "verdict", "pictures", "answers"}
        return set()
