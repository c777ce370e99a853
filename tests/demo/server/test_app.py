"""The service as its clients meet it: right answers, one sentence where something is wrong, and never somebody else's part."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from plates import plate
from starlette.testclient import TestClient

from sage_ad.agents.inspector import SageInspector
from sage_ad.demo.server import app
from sage_ad.demo.server.app import build_server
from sage_ad.demo.server.settings import ServerSettings, read_keys
from sage_ad.demo.services.engine import Engine
from sage_ad.demo.services.fair_queue import Event
from sage_ad.evaluation.inspection import InspectionTrace
from sage_ad.knowledge.looks.pictures import add_looks
from sage_ad.vlm.errors import InputError

KEY = "0123456789abcdef0123"


@pytest.fixture(scope="module")
def inspector() -> SageInspector:
    return SageInspector()


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("plates")
    names = {"bad": True, "fine": False, "good": False}
    made = {name: plate(root / f"{name}.png", bad, number) for number, (name, bad) in enumerate(names.items())}
    (root / "broken.png").write_bytes(b"no picture")
    return {**made, "broken": root / "broken.png"}


@contextmanager
def served(inspector: SageInspector, home: Path, **settings: Any) -> Iterator[tuple[TestClient, Engine]]:
    chosen = ServerSettings(home=home, **settings)
    engine = Engine(chosen, inspector)
    with TestClient(build_server(engine, chosen)) as client:
        yield client, engine


@pytest.fixture
def client(inspector: SageInspector, tmp_path: Path) -> Iterator[TestClient]:
    with served(inspector, tmp_path) as (client, _):
        yield client


def files(image: Path, *references: Path) -> list[tuple[str, Any]]:
    return [("image", (image.name, image.read_bytes()))] + [
        ("references", (path.name, path.read_bytes())) for path in references
    ]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_part_gets_its_trace_and_no_path_of_the_server(client: TestClient, plates: dict[str, Path]) -> None:
    reply = client.post("/inspect", files=files(plates["bad"], plates["good"]), data={"product": "plate"})
    assert reply.status_code == 200, reply.text
    trace = InspectionTrace.from_json(reply.text)
    assert (trace.image, trace.references, trace.product) == ("bad.png", ["good.png"], "plate")
    assert trace.verdict == "anomalous"
    assert trace.regions[0].place == "upper left"
    assert trace.explanation
    assert "/tmp" not in reply.text
    again = client.post("/inspect", files=files(plates["fine"], plates["good"]))
    assert again.json()["verdict"] == "normal"


@pytest.mark.parametrize("kind", ["text/event-stream", "application/x-ndjson"])
def test_steps_are_streamed_and_the_verdict_comes_before_the_words(
    client: TestClient, plates: dict[str, Path], kind: str
) -> None:
    reply = client.post("/inspect", files=files(plates["bad"], plates["good"]), headers={"Accept": kind})
    assert reply.headers["content-type"].startswith(kind)
    text = reply.text
    if kind == "text/event-stream":
        text = "\n".join(line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: "))
    events = lines(text)
    names = [event["event"] for event in events]
    assert names[-1] == "trace"
    assert names.index("measured") < names.index("explanation") < names.index("trace")
    assert events[names.index("measured")]["trace"]["verdict"] == events[-1]["trace"]["verdict"] == "anomalous"


def test_a_taught_product_needs_no_reference(
    client: TestClient, plates: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / "home"))
    add_looks("general", "Brushed plate", [plates["good"]], defect=None)
    add_looks("general", "brushed plate", [plates["bad"]], defect="gash")
    known = client.get("/products").json()
    assert known["taught"] == [{"product": "Brushed plate", "domain": "general", "good": 1, "defects": {"gash": 1}}]
    assert {"photovoltaics"} <= {pack["domain"] for pack in known["packs"]}
    reply = client.post("/inspect", files=files(plates["fine"]), data={"product": "brushed plate"}).json()
    assert reply["threshold_from"] == "references"


def test_a_batch_is_a_line_a_part_and_one_bad_picture_stops_nothing(
    client: TestClient, plates: dict[str, Path]
) -> None:
    sent = [("images", (plates[name].name, plates[name].read_bytes())) for name in ("bad", "broken", "fine")]
    sent.append(("references", ("good.png", plates["good"].read_bytes())))
    found = lines(client.post("/batch", files=sent).text)
    assert [line.get("image") for line in found] == ["bad.png", "broken.png", "fine.png", None]
    assert "no picture" in found[1]["error"]
    assert [found[n]["trace"]["verdict"] for n in (0, 2)] == ["anomalous", "normal"]
    assert found[3]["summary"] == {"parts": 3, "normal": 1, "anomalous": 1, "errors": 1}


@pytest.mark.parametrize(
    ("sent", "data", "status", "said"),
    [
        ((), {}, 422, "'image' is missing"),
        (("broken",), {}, 422, "broken.png"),
        (("bad", "broken"), {}, 422, "broken.png"),
        (("bad",), {"domain": "phrenology"}, 422, "phrenology"),
        (("bad",), {"mm_per_pixel": "-1"}, 422, "mm_per_pixel"),
        (("bad",), {"mm_per_pixel": "inf"}, 422, "mm_per_pixel"),
        (("bad",), {"product": "x" * 200}, 422, "200 characters"),
        (("bad",), {"references": ""}, 422, "'references.0' must be a file"),
        (("bad",), {"reference": "good.png"}, 422, "There is no field 'reference'; the fields are: image, references,"),
        (("bad",), {"product": ["plate", "disc"]}, 422, "'product' was sent 2 times"),
        (("bad", "good", "good", "fine"), {}, 413, "at most 2"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    inspector: SageInspector, plates: dict[str, Path], tmp_path: Path, sent: tuple[str, ...], data: dict[str, str],
    status: int, said: str,
) -> None:  # fmt: skip
    with served(inspector, tmp_path, max_references=2) as (client, _):
        chosen = files(*(plates[name] for name in sent)) if sent else None
        reply = client.post("/inspect", files=chosen, data=data)
        assert client.post("/inspect?product=plate", files=files(plates["bad"])).status_code == 422
    assert reply.status_code == status, reply.text
    assert said in reply.json()["detail"]
    assert "/tmp" not in reply.text


def test_sizes_are_limited_with_and_without_a_declared_length(
    inspector: SageInspector, plates: dict[str, Path], tmp_path: Path
) -> None:
    with served(inspector, tmp_path, max_megabytes=1, max_request_megabytes=2, max_pixels=9000) as (client, _):
        big = [("image", ("big.png", b"x" * (2**20 + 1)))]
        assert client.post("/inspect", files=big).status_code == 413
        huge = [("image", ("big.png", b"x" * 3 * 2**20))]
        assert client.post("/inspect", files=huge).status_code == 413
        body = client.build_request("POST", "/inspect", files=huge)
        head = {"content-type": body.headers["content-type"]}
        reply = client.post("/inspect", content=iter([body.read()]), headers=head)
        assert (reply.status_code, "2 MB" in reply.json()["detail"]) == (413, True)
        reply = client.post("/inspect", files=files(plates["bad"]))  # 96 x 96 pixels
        assert (reply.status_code, "9216" in reply.text or "96 x 96" in reply.text) == (422, True)


def test_a_full_disk_is_said_and_ends_no_batch(
    client: TestClient, plates: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(app, "write_whole", full)
    reply = client.post("/inspect", files=files(plates["bad"]))
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "60")
    assert "No space left" in reply.json()["detail"]
    sent = [("images", (plates[name].name, plates[name].read_bytes())) for name in ("bad", "fine")]
    told = lines(client.post("/batch", files=sent).text)
    assert ["No space left" in line.get("error", "") for line in told] == [True, True, False]
    assert told[-1]["summary"]["errors"] == 2


def test_keys_are_asked_for_and_never_repeated(
    inspector: SageInspector, plates: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with served(inspector, tmp_path, keys=(KEY,)) as (client, _):
        assert client.get("/health").json()["status"] == "ok"
        assert client.post("/inspect", files=files(plates["bad"])).status_code == 401
        assert client.get("/metrics", headers={"X-API-Key": "wrong"}).status_code == 401
        assert client.get("/products", headers={"Authorization": f"bearer {KEY}"}).status_code == 200
        assert KEY not in client.get("/metrics", headers={"X-API-Key": KEY}).text
        assert KEY not in client.get("/").text
    said = capfd.readouterr()
    assert KEY not in said.out + said.err
    assert KEY not in repr(ServerSettings(keys=(KEY,)))


def test_keys_come_from_a_file_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_SERVE_KEYS", f"{KEY}, ")
    (tmp_path / "keys").write_text("# cameras\nfedcba9876543210  # line 3\n\n")
    assert read_keys(tmp_path / "keys") == (KEY, "fedcba9876543210")
    for wrong in (tmp_path / "none", Path(__file__).parent):
        with pytest.raises(InputError):
            read_keys(wrong)
    with pytest.raises(InputError, match="16") as caught:
        ServerSettings(keys=("secret",))
    assert "secret" not in str(caught.value)


@contextmanager
def held(engine: Engine) -> Iterator[None]:
    """While this lasts the only worker is busy."""
    go, begun = threading.Event(), threading.Event()

    def hold() -> Iterator[Event]:
        begun.set()
        go.wait(30)
        yield {"event": "held"}

    engine.queue.submit("somebody", hold)
    assert begun.wait(30)
    try:
        yield
    finally:
        go.set()


def test_a_line_that_is_too_fast_is_told_when_to_come_back(
    inspector: SageInspector, plates: dict[str, Path], tmp_path: Path
) -> None:
    with served(inspector, tmp_path, waiting=2, waiting_each=1) as (client, engine), ThreadPoolExecutor(1) as pool:
        with held(engine):
            first = pool.submit(client.post, "/inspect", files=files(plates["bad"], plates["good"]))
            while not engine.queue.waiting:
                pass
            mine = client.post("/inspect", files=files(plates["fine"]))
            engine.queue.submit("another", lambda: iter(()))
            full = client.post("/inspect", files=files(plates["fine"]))
            assert client.get("/health").json() == {"status": "ok", "model": "sage-tiny", "waiting": 2, "running": 1}
        assert [mine.status_code, full.status_code] == [429, 429]
        assert int(mine.headers["Retry-After"]) >= 1
        assert "waiting" in mine.json()["detail"]
        assert first.result().json()["verdict"] == "anomalous"
        counters = client.get("/metrics").text
    for line in (
        'sage_inspections_total{outcome="anomalous"} 1.0', "sage_refused_total 2.0", "sage_waiting ",
        'sage_requests_total{path="/inspect",status="429"} 2.0', "sage_inspection_seconds_count 1.0",
    ):  # fmt: skip
        assert line in counters, counters


def test_when_all_have_too_much_waiting_it_is_nobodys_own_fault(
    inspector: SageInspector, plates: dict[str, Path], tmp_path: Path
) -> None:
    with served(inspector, tmp_path, waiting=1) as (client, engine), held(engine):
        engine.queue.submit("another", lambda: iter(()))
        reply = client.post("/inspect", files=files(plates["fine"]))
    assert reply.status_code == 503
    assert reply.headers["Retry-After"]


def test_clients_at_once_get_their_own_parts(inspector: SageInspector, tmp_path: Path, plates: dict[str, Path]) -> None:
    parts = {f"p{n}.png": plate(tmp_path / f"p{n}.png", n % 2 == 1, 50 + n) for n in range(8)}
    with served(inspector, tmp_path, parallel=2) as (client, _), ThreadPoolExecutor(8) as pool:
        replies = pool.map(lambda part: client.post("/inspect", files=files(part, plates["good"])), parts.values())
        found = [reply.json() for reply in replies]
    assert [trace["image"] for trace in found] == list(parts)
    scores = [trace["anomaly_score"] for trace in found]
    assert max(scores[0::2]) < min(scores[1::2]), "those with a gash are every second one"


def test_the_page_explains_every_endpoint_without_script_or_network(client: TestClient) -> None:
    page = client.get("/").text
    for name in ("/inspect", "/batch", "/products", "/health", "/metrics", "references", "Retry-After"):
        assert name in page
    assert "<script" not in page
    assert "https://" not in page
    schema = client.get("/openapi.json").json()
    for path in schema["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert operation["description"]
    assert client.get("/nothing").json()["detail"].startswith("There is no GET /nothing")


def test_uploads_are_gone_when_the_service_ends(
    inspector: SageInspector, plates: dict[str, Path], tmp_path: Path
) -> None:
    with served(inspector, tmp_path) as (client, _):
        uploads: Path = client.app.state.service.uploads  # type: ignore[attr-defined]
        client.post("/inspect", files=files(plates["bad"], plates["good"]))
        assert len(list(uploads.iterdir())) == 2
        client.post("/inspect", files=files(plates["fine"], plates["good"]))
        assert len(list(uploads.iterdir())) == 3  # the same reference is one file
    assert not uploads.exists()
