"""The README's example: make a domain, add a document, approve two facts, and see an inspection cite one of them."""

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
    "An HL-3 cell with a cut-off piece larger than eight percent of its area is rejected, because the string current drops.",
    "Cracks in HL-3 cells come mostly from the suction cups of the stringer, which press too hard when worn.",
)


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
    kb("approve", facts[NOTES[0]]["id"], facts[NOTES[1]]["id"])

    parts = inspector.resources
    bench = Resources(
        inspector.settings, extractor=parts.extractor, backend=parts.backend, judge=parts.judge, store=FactStore.open()
    )
    trace = SageInspector(resources=bench).inspect(
        InspectionRequest(image=cracked, references=[good], product="HL-3 cell", questions=STANDARD)
    )
    assert trace.domain == "hl3"
    cited = {identifier for answer in trace.answers for identifier in answer.facts}
    known = {fact.id: fact for fact in trace.facts}
    assert cited & {facts[NOTES[0]]["id"], facts[NOTES[1]]["id"]}
    assert all(known[identifier].status == "approved" for identifier in cited)
    assert "manual.pdf, page 1" in known[facts[NOTES[0]]["id"]].source
