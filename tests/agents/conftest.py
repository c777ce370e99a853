"""A warm inspector with the real parts, shared by the tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest
from standard import STANDARD

from sage_ad.agents.inspector import SageInspector
from sage_ad.evaluation.inspection import InspectionRequest, InspectionTrace


@pytest.fixture(scope="session")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> SageInspector:
    """All parts loaded once; the knowledge base is the shipped one (an empty user folder)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGE_HOME", str(tmp_path_factory.mktemp("warm-home")))
        warm = SageInspector()
        warm.load()
    return warm


@pytest.fixture(scope="session")
def cracked(elpv: dict[str, list[Path]]) -> Path:
    """The visibly cracked cell of `make inspect`."""
    return next(path for path in elpv["mono bad"] if path.name == "cell0404.png")


@pytest.fixture(scope="session")
def good(elpv: dict[str, list[Path]]) -> Path:
    """The good cell of `make inspect`."""
    return next(path for path in elpv["mono good"] if path.name == "cell0532.png")


@pytest.fixture(scope="session")
def trace(inspector: SageInspector, cracked: Path, good: Path) -> InspectionTrace:
    """One inspection with the five standard questions."""
    request = InspectionRequest(
        image=cracked, references=[good], domain="photovoltaics", product="solar cell", questions=STANDARD
    )
    return inspector.inspect(request)
