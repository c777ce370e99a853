"""Fixtures for all rooms: no test touches the user's folders or a network; real models load once per run."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run: what failed in CI fails here.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # see sage_ad.vlm.commandline.quiet_libraries
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each process of several has one core

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has an empty user data folder of its own; caches (which hold nothing of the user's) are shared."""
    monkeypatch.setenv("SAGE_HOME", str(tmp_path_factory.mktemp("sage-home")))


@pytest.fixture(autouse=True)
def _commands_end_without_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that ends its process at once would end the tests, too."""
    monkeypatch.setattr("sage_ad.vlm.commandline.end_at_once", sys.exit)


@pytest.fixture(scope="session", autouse=True)
def _shipped_packs_are_read_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Reads and embeds the shipped packs before the tests, so that each empty home begins with a copy of the result."""
    from sage_ad.knowledge.store.fact_store import FactStore

    with FactStore.open(tmp_path_factory.mktemp("no-packs")) as store:
        store.search("crack", k=1)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real inspection images (`$SAGE_DATA`, else ../shared/data beside the checkout)."""
    root = Path(os.environ.get("SAGE_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (root / "index.csv").is_file():
        pytest.skip(f"real images are absent: {root / 'index.csv'} does not exist (set SAGE_DATA to their folder)")
    return root


@pytest.fixture(scope="session")
def elpv() -> dict[str, list[Path]]:
    """Real solar cells of the package elpv-dataset: {"mono good": [...], "mono bad": [...], "poly good": ..., ...}."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package elpv-dataset is not installed (pip install elpv-dataset)")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    cells: dict[str, list[Path]] = {}
    for line in (folder / "labels.csv").read_text().splitlines():
        path, probability, kind = line.split()
        if float(probability) in (0.0, 1.0):
            cells.setdefault(f"{kind} {'bad' if float(probability) else 'good'}", []).append(folder / path)
    return cells


@pytest.fixture(scope="session")
def index_rows(data_root: Path) -> list[dict[str, str]]:
    """Rows of the real images' index.csv."""
    with (data_root / "index.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="session")
def chromium() -> str:
    """The distribution's Chromium (`.ci/run` installs it)."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    return found


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A Ray of this machine's own, started as `sage-batch --engine ray` starts it; its workers find the tests' modules."""
    from sage_ad.agents.batch.ray_engine import ray_running
    from sage_ad.vlm.errors import BackendError

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests" / "helpers")]))
        with contextlib.ExitStack() as stack:
            # Ray gives up after 30 seconds, which a machine that does other work beside the tests may exceed.
            for left in (2, 1, 0):
                try:
                    stack.enter_context(ray_running("local", workers=2))
                    break
                except BackendError:
                    if not left:
                        raise
            yield
