"""Make a domain, add a document, approve facts, and see an inspection cite the one that answers the question, by its page."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from standard import STANDARD

from sage_ad.agents.inspector import SageInspector
from sage_ad.agents.resources import Resources
from sage_ad.evaluation.inspection import InspectionRequest
from sage_ad.knowledge.store.fact_store import FactStore

NOTES = (
    "A dark patch with a straight border in an HL-3 cell is a piece that a crack has cut off from the busbar.",
    "An HL-3 cell with a cut-off piece longer than 9 mm is rejected, because the string current drops.",
    "Cracks in HL-3 cells come mostly from the suction cups of the stringer, which press too hard when worn.",
    "Slight differences in grey between the grains of an HL-3 cell are normal and belong to good cells.",
)


LIMIT = "How long may a cut-off piece be?"


def pdf(path: Path) -> Path:
    """A one-page manual."""
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import Paragraph, SimpleDocTemplate

    style = getSampleStyleSheet()["BodyText"]
    SimpleDocTemplate(str(path)).build([Paragraph(sentence, style) for sentence in NOTES])
    return path


def test_from_a_manual_to_a_cited_fact(
    inspector: SageInspector,
    cracked: Path,
    good: Path,
    elpv: dict[str, list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from sage_ad.knowledge.cli import main

    def kb(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["sage-kb", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert not ended.value.code, said.err
        return said.out

    kb("new-domain", "hl3")
    pack = Path(os.environ["SAGE_HOME"]) / "domains" / "hl3" / "pack.yaml"
    pack.write_text(pack.read_text(encoding="utf-8").replace("- name: hl3", "- name: HL-3 cell"), encoding="utf-8")
    kb("add", "hl3", pdf(tmp_path / "manual.pdf"))
    facts = {fact["text"]: fact for fact in json.loads(kb("list", "--domain", "hl3", "--json"))["facts"]}
    assert {fact["status"] for fact in facts.values()} == {"proposed"}
    kb("approve", *(facts[note]["id"] for note in NOTES))

    parts = inspector.resources
    bench = Resources(
        inspector.settings, extractor=parts.extractor, backend=parts.backend, judge=parts.judge, store=FactStore.open()
    )
    other = next(path for path in elpv["mono good"] if path.name == "cell0423.png")
    for image, verdict in ((cracked, "anomalous"), (other, "normal")):
        trace = SageInspector(resources=bench).inspect(
            InspectionRequest(image=image, references=[good], product="HL-3 cell", questions=[*STANDARD, LIMIT])
        )
        assert (trace.domain, trace.verdict) == ("hl3", verdict)
        # Nobody has shown what cracks and pieces look like, so that no answer about the part itself tells a fact about them.
        assert [answer.facts for answer in trace.answers] == [[]] * len(STANDARD) + [[facts[NOTES[1]]["id"]]]
        known = {fact.id: fact for fact in trace.facts}
        assert "manual.pdf, page 1" in known[facts[NOTES[1]]["id"]].source
        assert any(fact.id in known for fact in FactStore.open().facts("hl3"))
