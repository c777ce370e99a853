"""Whole batches with the real parts: the same traces as one by one, and every part once whatever happens."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from openai_server import ServerProcess
from plates import plate

from sage_ad.agents.batch.cli import main
from sage_ad.agents.batch.manifest import Part, read_parts
from sage_ad.agents.batch.run import BatchSettings, run_batch
from sage_ad.agents.batch.store import JOURNAL, BatchStopped, Row, read_table
from sage_ad.agents.batch.worker import Finished, PartWorker
from sage_ad.agents.inspector import SageInspector
from sage_ad.agents.resources import Resources
from sage_ad.agents.settings import AgentSettings
from sage_ad.evaluation.inspection import InspectionRequest, InspectionTrace
from sage_ad.knowledge.looks.pictures import add_looks


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve plates, every third with a gash, one file that is no picture, and a good plate beside the folder."""
    root = tmp_path_factory.mktemp("plates")
    for number in range(12):
        plate(root / "parts" / f"plate {number:02} ä.png", number % 3 == 2, number)
    (root / "parts" / "broken.png").write_bytes(b"half a picture")
    plate(root / "good.png", False, 99)
    return root


def each_once(out: Path, parts: Sequence[Part]) -> list[Row]:
    rows = list(read_table(out / "results.parquet"))
    assert [row["key"] for row in rows] == [part.key for part in parts]
    return rows


class Here:
    """An engine in this process, for what needs no processes of its own."""

    name, workers, restarts = "here", 1, 0

    def __init__(self, worker: PartWorker, chunk: int = 4) -> None:
        self.worker, self.chunk = worker, chunk

    def run(self, parts: Sequence[Part]) -> Generator[Finished, None, None]:
        for at in range(0, len(parts), self.chunk):
            yield self.worker.inspect(parts[at : at + self.chunk])


def parts_of(inspector: SageInspector) -> dict[str, Any]:
    bench = inspector.resources
    return {"extractor": bench.extractor, "store": bench.store, "backend": bench.backend, "judge": bench.judge}


def test_traces_are_those_of_one_inspection_after_the_other(
    inspector: SageInspector, elpv: dict[str, list[Path]], cracked: Path, good: Path
) -> None:
    # Two parts that their pack covers, one that is new to the knowledge base, one without reference and product.
    cells = [cracked, elpv["mono good"][3], elpv["mono bad"][1], elpv["mono good"][5]]
    products = ["solar cell", "solar cell", "widget", None]
    parts = [
        Part(n, f"k{n}", str(cell), (str(good),) if product else (), product, questions=("Is it good?", "Where is it?"))
        for n, (cell, product) in enumerate(zip(cells, products, strict=True))
    ]
    worker = PartWorker(BatchSettings(), **parts_of(inspector))
    rows = worker.inspect(parts).rows
    for part, row in zip(parts, rows, strict=True):
        alone = inspector.inspect(part.request())
        together = InspectionTrace.from_json(row["trace"])
        assert row["verdict"] == together.verdict == alone.verdict
        assert row["anomaly_score"] == pytest.approx(alone.anomaly_score, abs=1e-3)
        assert together.regions == alone.regions
        assert [item.verdict for item in together.answers] == [item.verdict for item in alone.answers]
        assert [fact.id for fact in together.facts if fact.status == "approved"] == [
            fact.id for fact in alone.facts if fact.status == "approved"
        ]
        assert (together.product, together.domain, together.threshold) == (alone.product, alone.domain, alone.threshold)
        assert [step.name for step in together.steps] == [step.name for step in alone.steps]
        assert all(isinstance(item["objections"], list) for item in row["answers"])


def test_parts_of_a_sage_model_are_answered_together_as_alone(
    inspector: SageInspector, elpv: dict[str, list[Path]], cracked: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny_models import tiny_language_model, tiny_tokenizer

    from sage_ad.vlm.backends.sage_backend import SageBackend
    from sage_ad.vlm.sage.processing_sage import SageProcessor
    from sage_ad.vlm.sage.wrapping import from_base

    processor = SageProcessor.from_base(tiny_tokenizer(), image_side=3)
    model = from_base(tiny_language_model(), processor=processor, patch_channels=168, distinct=4, fusion_heads=4)
    backend = SageBackend(model.float(), processor, name="tiny SAGE")
    shared = {**parts_of(inspector), "backend": backend}
    parts = [
        Part(n, f"k{n}", str(cell), (str(good),), "solar cell", questions=("Is it good?",))
        for n, cell in enumerate([cracked, *elpv["mono good"][3:5]])
    ]
    alone = SageInspector(resources=Resources(AgentSettings(), **shared))
    traces = [alone.inspect(part.request()) for part in parts]
    asked: list[int] = []
    real = backend.answer_parts
    monkeypatch.setattr(backend, "answer_parts", lambda queries, **s: asked.append(len(queries)) or real(queries, **s))
    for trace, row in zip(traces, PartWorker(BatchSettings(), **shared).inspect(parts).rows, strict=True):
        together = InspectionTrace.from_json(row["trace"])
        timed = {"seconds", "steps"}
        assert together.model_dump(exclude=timed) == trace.model_dump(exclude=timed)
        assert "tiny SAGE takes the part for" in next(s.summary for s in together.steps if s.name == "answer")
    assert asked == [3]


def test_evidence_only_is_the_evidence_of_a_whole_inspection(
    inspector: SageInspector, cracked: Path, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [Part(1, "k1", str(cracked), (str(good),), "solar cell"), Part(2, "k2", str(good))]
    extractor = inspector.resources.extractor
    prepared: list[int] = []
    real = extractor.prepare
    monkeypatch.setattr(extractor, "prepare", lambda images: prepared.append(len(images)) or real(images))
    worker = PartWorker(BatchSettings(language=False, pictures=True), extractor=extractor)
    summary = run_batch(
        [*parts, Part(3, "k3", str(good), (str(good),))], tmp_path, worker.settings, engine=Here(worker)
    )
    assert prepared == [1]  # the reference of two parts was encoded once
    assert summary.parts == 3
    first, second, _ = read_table(tmp_path / "results.parquet")
    for part, row in zip(parts, (first, second), strict=True):
        alone = inspector.inspect(part.request())
        assert (row["verdict"], row["product"]) == (alone.verdict, part.product)
        assert row["anomaly_score"] == pytest.approx(alone.anomaly_score, abs=1e-3)
        assert row["answers"] == []
        assert "evidence only" in row["model"]
        assert (tmp_path / row["picture"]).read_bytes().startswith(b"\x89PNG")


def test_evidence_only_takes_the_good_looks_of_a_taught_product(
    inspector: SageInspector, cracked: Path, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / "home"))
    add_looks("photovoltaics", "thin cell", [good], defect=None)
    worker = PartWorker(BatchSettings(language=False), extractor=inspector.resources.extractor)
    (row,) = worker.inspect([Part(1, "k1", str(cracked), product="thin cell")]).rows
    alone = inspector.inspect(InspectionRequest(image=cracked, references=[good]))
    assert (row["threshold_from"], row["domain"]) == ("references", "photovoltaics")
    assert row["anomaly_score"] == pytest.approx(alone.anomaly_score, abs=1e-3)


def test_a_server_that_vanishes_leaves_what_is_finished(
    inspector: SageInspector, elpv: dict[str, list[Path]], tmp_path: Path
) -> None:
    parts = [
        Part(n, f"k{n}", str(cell), product="solar cell", questions=("Is it good?",))
        for n, cell in enumerate(elpv["mono good"][:4])
    ]
    shared = {name: part for name, part in parts_of(inspector).items() if name != "backend"}
    settings = BatchSettings(AgentSettings(model="http://127.0.0.1:9/v1#scripted-model"))
    with ServerProcess() as server:
        from sage_ad.vlm.backends.served import ServedBackend

        backend = ServedBackend(server.url, "scripted-model", retries=0)
        worker = PartWorker(settings, backend=backend, **shared)
        server.plan()

        def unplug(rows: list[Row]) -> None:
            server.process.kill()
            server.process.wait()

        with pytest.raises(BatchStopped, match=r"2 of 4 parts are safe in .*--resume"):
            run_batch(parts, tmp_path, settings, engine=Here(worker, chunk=2), on_rows=unplug)
    with ServerProcess() as server:
        again = PartWorker(settings, backend=ServedBackend(server.url, "scripted-model"), **shared)
        summary = run_batch(parts, tmp_path, settings, engine=Here(again), resume=True)
    assert (summary.resumed, summary.errors) == (2, 0)
    each_once(tmp_path, parts)


def command(*arguments: object) -> list[str]:
    # A test run in the background of a shell ignores Ctrl-C, and so would its children.
    script = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script += "from sage_ad.agents.batch.cli import main\nmain()"
    return [sys.executable, "-c", script, *map(str, arguments)]


def stop_after(journal: Path, rows: int, how: signal.Signals, arguments: list[object]) -> tuple[int, str]:
    """Runs the command until so many rows are on disk, then stops it; gives its status and what it said."""
    process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= rows:
            break
        time.sleep(0.02)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def test_killed_twice_and_interrupted_it_ends_with_every_part_once(plates: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments: list[object] = [plates / "parts", "--reference", plates / "good.png", "--out", out]
    arguments += ["--evidence-only", "--workers", 1, "--chunk", 1, "--resume"]
    journal = out / JOURNAL
    for rows, how, status in ((2, signal.SIGKILL, -9), (4, signal.SIGKILL, -9), (6, signal.SIGINT, 130)):
        ended, said = stop_after(journal, rows, how, arguments)
        assert ended == status, said
    assert "--resume" in said
    assert "Traceback" not in said
    assert "leaked" not in said
    before = [json.loads(line)["key"] for line in journal.read_text(encoding="utf-8").splitlines()]
    assert 6 <= len(before) < 13
    ran = subprocess.run(command(*arguments, "--json"), capture_output=True, text=True, timeout=120)
    assert ran.returncode == 1, ran.stderr
    summary = json.loads(ran.stdout)
    assert summary["parts"] == 13
    assert summary["resumed"] == len(before)
    assert [Path(item["image"]).name for item in summary["errors_shown"]] == ["broken.png"]
    parts = read_parts(plates / "parts", references=[plates / "good.png"])
    rows_found = each_once(out, parts)
    scores = {Path(row["image"]).name: row["anomaly_score"] for row in rows_found if row["error"] is None}
    gashed = [score for name, score in scores.items() if int(name[6:8]) % 3 == 2]
    assert sum(gashed) / len(gashed) > sum(scores.values()) / len(scores)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Runs the command in this process; gives status, standard output and standard error."""
    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sage-batch", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--reference", "nowhere.png"), "nowhere.png"),
        (("--engine", "abacus"), "not one of 'local', 'ray'"),
        (("--workers", "-1"), "cannot be negative"),
        (("--address", "auto"), "--engine ray"),
        (("--retry-errors",), "--resume"),
        (("--domain", "photovoltaic"), "the nearest is photovoltaics"),
        (("--domain", "photovoltaic", "--evidence-only"), "the nearest is photovoltaics"),
        (("--question", "Is it good?", "--evidence-only"), "answers no question"),
        (("--facts", "boiled"), "boiled"),
        (("--engine", "ray", "--address", "127.0.0.1:1"), "no Ray cluster at '127.0.0.1:1'"),
    ],
)
def test_bad_options_are_one_line(run, plates: Path, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    status, out, err = run(plates / "parts", "--out", tmp_path / "out", *arguments)
    assert_refused(status, out, err, said)


def test_evidence_pictures_are_never_parts(run, plates: Path) -> None:
    folder = plates / "parts"
    refused = run(folder, "--recursive", "--pictures", "--out", folder / "out")
    assert_refused(*refused, "name a folder elsewhere")


def assert_refused(status: int, out: str, err: str, said: str) -> None:
    assert status == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert said in err
