"""Documents become facts while one watches, and every visitor's files stay their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from light_embedder import LightEmbedder

from sage_ad.demo.services.documents import ingestion, keep_documents
from sage_ad.knowledge.store.fact_store import FactStore
from sage_ad.vlm.errors import InputError

TEXT = """# Pump impeller

A crack at the root of an impeller blade appears as a thin dark line that runs towards the hub.
Cavitation on an impeller appears as a field of small dark pits near the leading edge of the blade.
"""


@pytest.fixture
def manual(tmp_path: Path) -> Path:
    path = tmp_path / "uploads" / "manual.md"
    path.parent.mkdir()
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_every_step_is_told_and_the_facts_are_there_at_the_end(tmp_path: Path, manual: Path) -> None:
    with FactStore.open(tmp_path / "home", LightEmbedder(), cache=tmp_path / "cache") as store:
        kept = keep_documents([manual], tmp_path / "kept", "a" * 24, "casting")
        events = list(ingestion(store, kept, "casting"))
        assert [event["step"] for event in events if event["event"] == "did"][:2] == ["load", "split"]
        assert {event["file"] for event in events if event["event"] == "did"} == {"manual.md"}
        outcomes = [event["facts"] for event in events if event["event"] == "facts"]
        assert all(fact["outcome"] is None for fact in outcomes[0]), "sentences are seen before they are checked"
        report = events[-1]["report"]
        assert report.files[0].outcome in ("added", "nothing")
        stored = store.facts("casting", source=str(kept[0].resolve()))
        assert len(stored) == len(report.added)
        assert all(fact.status == "proposed" for fact in stored)


def test_an_unknown_domain_is_refused_before_anything_is_read(tmp_path: Path, manual: Path) -> None:
    with (
        FactStore.open(tmp_path / "home", LightEmbedder(), cache=tmp_path / "cache") as store,
        pytest.raises(InputError, match="no domain named"),
    ):
        list(ingestion(store, [manual], "nowhere"))


def test_two_visitors_files_of_one_name_are_two_files(tmp_path: Path, manual: Path) -> None:
    mine, yours = (keep_documents([manual], tmp_path / "kept", owner * 24, "casting")[0] for owner in "ab")
    assert mine != yours
    assert mine.is_file()
    assert yours.is_file()
    assert keep_documents([manual], tmp_path / "kept", "a" * 24, "casting") == [mine], "a changed file keeps its place"


def test_what_is_no_document_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "program.exe"
    path.write_bytes(b"MZ")
    with pytest.raises(InputError, match=r"program\.exe"):
        keep_documents([path], tmp_path / "kept", "a" * 24, "casting")
