"""From files to facts: provenance, nothing twice, changed and removed sources, bad files named, the graph's steps."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from documents import FACTS, write_captions, write_docx, write_pdf

from sage_ad.knowledge.ingestion.pipeline import STEPS, Ingestion, IngestionReport, collect_files, ingest
from sage_ad.knowledge.store.fact_store import FactStore
from sage_ad.knowledge.store.sources import JOURNAL, journal, remove_source
from sage_ad.knowledge.vectors.embedding import default_embedder
from sage_ad.vlm.backends.scripted import ScriptedBackend
from sage_ad.vlm.errors import BackendError, InputError

DOMAIN = "photovoltaics"
HANDBOOK = "# Cracks\n\nWelcome to our handbook.\n\n" + "\n\n".join(FACTS) + "\n"


@pytest.fixture
def store(tmp_path: Path) -> FactStore:
    return FactStore.open(tmp_path / "home", default_embedder())


@pytest.fixture
def handbook(tmp_path: Path) -> Path:
    path = tmp_path / "handbook.md"
    path.write_text(HANDBOOK, encoding="utf-8")
    return path


def mine(store: FactStore) -> dict[str, str]:
    """Text and status of what is stored beyond the shipped facts."""
    return {fact.text: fact.status for fact in store.facts(DOMAIN) if fact.added}


class TestProvenance:
    def test_each_fact_can_be_traced_to_its_characters(self, store: FactStore, tmp_path: Path):
        path = write_pdf(tmp_path / "manual.pdf", FACTS, header="ACME manual")
        report = ingest([path], DOMAIN, store)
        assert sorted(fact.text for fact in report.added) == sorted(FACTS)
        for fact in store.facts(DOMAIN, source=str(path)):
            (source,) = fact.sources
            assert source.location is not None
            assert source.location.page == FACTS.index(fact.text) + 1
            assert source.location.span is not None
            assert source.extractor == "sentence-classifier"
            assert source.sha256
            assert source.date
            assert fact.status == "proposed"
            assert source.model is None
        assert report.files[0].outcome == "added"
        json.dumps(report.record())

    def test_approve_is_the_experts_word_for_sentences_taken_word_for_word(self, store: FactStore, handbook: Path):
        ingest([handbook], DOMAIN, store, approve=True)
        assert set(mine(store).values()) == {"approved"}

    def test_what_a_model_worded_stays_proposed(self, store: FactStore, handbook: Path):
        reply = json.dumps([{"fact": "Solar cells are often cracked by hail impact.", "kind": "cause"}])
        ingest([handbook], DOMAIN, store, ScriptedBackend([reply]), approve=True)
        assert mine(store) == {"Solar cells are often cracked by hail impact.": "proposed"}
        (fact,) = store.facts(DOMAIN, source=str(handbook))
        assert (fact.sources[0].model, fact.sources[0].extractor) == ("scripted", "model scripted")

    def test_every_format_in_one_folder(self, store: FactStore, tmp_path: Path):
        store.new_domain("castings")
        folder = tmp_path / "documents with spaces ä"
        folder.mkdir()
        write_docx(folder / "a.docx")
        write_captions(folder)
        (folder / "b.csv").write_text("defect,cause\nmisrun,the melt froze before the mould was full\n")
        (folder / ".hidden.md").write_text("Hidden text is not read at all.")
        report = ingest([folder], "castings", store)
        assert {Path(file.file).name: file.outcome for file in report.files} == {
            "a.docx": "added",
            "b.csv": "added",
            "captions.jsonl": "added",
        }
        kinds = {fact.text: fact.kind for fact in store.facts("castings") if fact.added}
        assert kinds["Misrun, cause: the melt froze before the mould was full"] == "cause"
        assert "A branching dark crack runs from the busbar." in kinds
        assert len(report.problems) == 1
        assert "gone.png" in report.problems[0]


class TestAgain:
    def test_the_same_file_twice_adds_nothing(self, store: FactStore, handbook: Path, tmp_path: Path):
        ingest([handbook], DOMAIN, store)
        before = store.facts(DOMAIN)
        report = ingest([handbook], DOMAIN, store)
        assert report.files[0].outcome == "unchanged"
        assert store.facts(DOMAIN) == before
        moved = handbook.rename(tmp_path / "renamed.md")
        assert ingest([moved], DOMAIN, store).files[0].outcome == "unchanged"
        assert store.facts(DOMAIN) == before

    def test_a_file_whose_taking_in_was_cut_off_is_read_again_and_adds_nothing_twice(
        self, store: FactStore, handbook: Path
    ):
        ingest([handbook], DOMAIN, store)
        before = store.facts(DOMAIN)
        (store.user / DOMAIN / JOURNAL).unlink()  # as if the process had died before the last line
        report = ingest([handbook], DOMAIN, store)
        assert (report.files[0].outcome, report.added) == ("added", [])
        assert store.facts(DOMAIN) == before

    def test_a_changed_file_updates_its_own_facts_only(self, store: FactStore, handbook: Path, tmp_path: Path):
        other = tmp_path / "other.txt"
        other.write_text(FACTS[1])
        ingest([handbook, other], DOMAIN, store)
        approved = next(fact for fact in store.facts(DOMAIN, source=str(handbook)) if fact.text == FACTS[0])
        store.set_status(approved.id, "approved")
        new = "A broken cell interconnect makes a solar cell appear dark on one side of the busbar."
        handbook.write_text(f"{FACTS[0]}\n\n{new}\n")
        report = ingest([handbook], DOMAIN, store)
        assert report.files[0].outcome == "updated"
        assert [fact.text for fact in report.added] == [new]
        assert report.files[0].removed == 1
        assert mine(store) == {FACTS[0]: "approved", FACTS[1]: "proposed", new: "proposed"}
        shared = next(fact for fact in store.facts(DOMAIN, source=str(other)))
        assert [source.file for source in shared.sources] == [str(other)]
        assert len(store.get(approved.id).sources) == 1

    def test_removing_a_source_keeps_facts_that_have_another(self, store: FactStore, handbook: Path, tmp_path: Path):
        other = tmp_path / "other.txt"
        other.write_text(FACTS[1])
        ingest([handbook, other], DOMAIN, store)
        outcome = remove_source(store, str(handbook))
        assert sorted(fact.text for fact in outcome.removed) == sorted([FACTS[0], FACTS[2]])
        assert [fact.text for fact in outcome.kept] == [FACTS[1]]
        assert list(mine(store)) == [FACTS[1]]
        assert journal(store, DOMAIN)[str(handbook)].removed
        with pytest.raises(InputError, match="No fact has the source"):
            remove_source(store, str(handbook))
        assert ingest([handbook], DOMAIN, store).files[0].added == 2

    def test_a_rejected_fact_stays_rejected(self, store: FactStore, handbook: Path):
        ingest([handbook], DOMAIN, store)
        rejected = next(fact for fact in store.facts(DOMAIN, source=str(handbook)) if fact.text == FACTS[1])
        store.set_status(rejected.id, "rejected")
        handbook.write_text(HANDBOOK + "\nThank you for reading this far.\n")
        ingest([handbook], DOMAIN, store, approve=True)
        assert mine(store)[FACTS[1]] == "rejected"

    def test_a_reworded_sentence_becomes_a_further_source(self, store: FactStore, handbook: Path, tmp_path: Path):
        ingest([handbook], DOMAIN, store)
        other = tmp_path / "other.txt"
        other.write_text("In the electroluminescence image, micro-cracks in a solar cell appear as thin dark lines.")
        report = ingest([other], DOMAIN, store)
        assert (report.added, [fact.text for fact in report.merged]) == ([], [FACTS[0]])
        (merged,) = store.facts(DOMAIN, source=str(other))
        assert {Path(source.file or "").name for source in merged.sources} == {"handbook.md", "other.txt"}

    def test_a_contradiction_is_stored_with_a_flag_and_never_approved(
        self, store: FactStore, handbook: Path, tmp_path: Path
    ):
        ingest([handbook], DOMAIN, store, approve=True)
        other = tmp_path / "other.txt"
        other.write_text("Micro-cracks in a solar cell appear as thin bright lines in the electroluminescence image.")
        report = ingest([other], DOMAIN, store, approve=True)
        (checked,) = report.contradictions
        (stored,) = store.facts(DOMAIN, source=str(other))
        assert checked.other is not None
        assert (stored.status, stored.flags) == ("proposed", (f"contradicts {checked.other.id}",))
        assert mine(store)[FACTS[0]] == "approved"


class TestBadInput:
    def test_bad_files_are_named_and_the_others_taken_in(self, store: FactStore, handbook: Path, tmp_path: Path):
        (tmp_path / "empty.txt").write_text("")
        (tmp_path / "half.pdf").write_bytes(b"%PDF-1.4 nonsense")
        (tmp_path / "image.png").write_bytes(b"x")
        (tmp_path / "archive.zip").write_bytes(b"PK")
        (tmp_path / "nothing").mkdir()
        paths = [
            tmp_path / name for name in ("empty.txt", "half.pdf", "gone.md", "image.png", "archive.zip", "nothing")
        ]
        report = ingest([*paths, handbook], DOMAIN, store)
        assert len(report.failed) == len(paths)
        assert len(report.problems) == len(paths)
        assert all("\n" not in problem and problem.endswith(".") for problem in report.problems), report.problems
        for path in paths:
            assert any(path.name in problem for problem in report.problems)
        assert len(report.added) == len(FACTS)

    def test_an_unknown_domain_or_no_path_raises_before_anything_is_read(self, store: FactStore, handbook: Path):
        with pytest.raises(InputError, match="'nowhere'"):
            ingest([handbook], "nowhere", store)
        with pytest.raises(InputError, match="Nothing was given"):
            ingest([], DOMAIN, store)

    def test_a_failing_back_end_fails_the_file_and_keeps_the_old_facts(self, store: FactStore, handbook: Path):
        ingest([handbook], DOMAIN, store)
        before = store.facts(DOMAIN)
        backend = ScriptedBackend([BackendError("The server does not answer; start it.")])
        report = ingest([handbook], DOMAIN, store, backend)
        assert report.files[0].outcome == "failed"
        assert "The server does not answer" in report.problems[0]
        assert store.facts(DOMAIN) == before

    def test_a_document_without_facts_says_so(self, store: FactStore, tmp_path: Path):
        path = tmp_path / "letter.txt"
        path.write_text("Dear all, the meeting is on Tuesday at nine. Please bring your own cup.")
        report = ingest([path], DOMAIN, store)
        assert (report.files[0].outcome, report.added) == ("nothing", [])

    def test_paths_are_read_once(self, tmp_path: Path, handbook: Path):
        files, problems = collect_files([handbook, tmp_path, handbook])
        assert (files, problems) == ([handbook], [])


class TestGraph:
    def test_steps_are_streamed_in_order_file_by_file(self, store: FactStore, handbook: Path, tmp_path: Path):
        other = tmp_path / "other.txt"
        other.write_text(FACTS[1])
        seen: list[tuple[str, str]] = []
        ingest([handbook, other], DOMAIN, store, progress=lambda step, file, _: seen.append((step, Path(file).name)))
        assert seen == [(step, name) for name in ("handbook.md", "other.txt") for step in STEPS]

    def test_its_drawing(self, store: FactStore):
        drawing = Ingestion(store, DOMAIN, None, False).graph().get_graph().draw_mermaid()
        for before, after in (("load", "split"), ("split", "extract"), ("check", "store"), ("store", "load")):
            assert f"{before}" in drawing
            assert any(
                line.strip().startswith(before) and line.rstrip(";").endswith(after) for line in drawing.split("\n")
            )

    def test_many_files_do_not_reach_a_limit(self, store: FactStore, tmp_path: Path):
        for number in range(12):
            (tmp_path / f"{number}.txt").write_text(FACTS[number % 3])
        report = ingest([tmp_path], DOMAIN, store)
        assert len(report.files) == 12
        assert len(report.added) == 3


def test_mmad_domain_knowledge_is_taken_in_by_product_and_defect(store: FactStore, data_root: Path, tmp_path: Path):
    """Six of the 38 categories, for time; all of them take about 15 s of one core (see the report of the room)."""
    whole = json.loads((data_root / "mmad" / "domain_knowledge.json").read_text(encoding="utf-8"))
    part = {"MVTec": {name: whole["MVTec"][name] for name in ("zipper", "metal_nut", "bottle")}, "VisA": {}}
    part["VisA"] = {name: whole["VisA"][name] for name in ("cashew", "pcb1", "candle")}
    path = tmp_path / "domain_knowledge.json"
    path.write_text(json.dumps(part))
    store.new_domain("mmad")
    began = time.perf_counter()
    report: IngestionReport = ingest([path], "mmad", store)
    assert time.perf_counter() - began < 60
    assert len(report.added) > 80
    assert not report.problems
    assert not report.contradictions
    products = {product for fact in report.added for product in fact.products}
    assert products == {"zipper", "metal nut", "bottle", "cashew", "pcb1", "candle"}
    for fact in report.added:
        location = fact.sources[0].location
        assert location is not None
        assert location.entry is not None
        assert (fact.kind == "normal-variation") == location.entry.endswith("/good")
    teeth = [fact for fact in report.added if fact.defects == ("broken teeth",)]
    assert teeth
    assert store.search("gap in the row of zipper teeth", domain="mmad", k=3)[0].fact.products == ("zipper",)
