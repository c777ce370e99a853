"""Fixtures of the tests of `evaluation`: made data, a stand-in for the eyes, and the real local judge, loaded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from plates import PlainExtractor, gash, plate

from sage_ad.evaluation.inspection import Gold, Judge, JudgeRequest, MLEScore
from sage_ad.evaluation.judge.loading import load_judge
from sage_ad.evaluation.judge.local import LocalJudge
from sage_ad.vlm.evidence import extractor as evidence


@pytest.fixture(scope="session")
def local_judge() -> Judge:
    """The local judge with its real sentence encoder."""
    return load_judge("local")


@pytest.fixture(scope="session")
def score(local_judge: Judge) -> Callable[..., MLEScore]:
    """Scores one answer to a question about a scratched part, unless the caller says otherwise."""
    scratched = Gold(
        verdict=False,
        anomalous=True,
        defect="scratch",
        place="upper left",
        reference_answer="False. There is a scratch in the upper left.",
    )

    every = LocalJudge(every_level=True)

    def judge(
        answer: str,
        question: str = "Is this part free of defects?",
        gold: Gold | None = scratched,
        every_level: bool = False,
        **more: object,
    ) -> MLEScore:
        judge = every if every_level else local_judge
        return judge.judge([JudgeRequest(question, answer, gold=gold, **more)])[0]  # type: ignore[arg-type]

    return judge


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    """Three categories in MVTec's layout: complete with masks, without masks, and without good images."""
    root = tmp_path / "plates"
    for name in ("plate", "sheet"):
        for number in range(6):
            plate(root / name / "train" / "good" / f"{number}.png", False, number)
        for number in range(3):
            plate(root / name / "test" / "good" / f"{number}.png", False, 50 + number)
            plate(root / name / "test" / "gash" / f"{number}.png", True, 80 + number)
            if name == "plate":
                gash(root / name / "ground_truth" / "gash" / f"{number}_mask.png")
    plate(root / "washer" / "test" / "gash" / "0.png", True, 9)
    return root


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> PlainExtractor:
    """`sage-eval detect` measures with the stand-in instead of the encoder."""
    extractor = PlainExtractor()
    monkeypatch.setattr(evidence, "EvidenceExtractor", lambda _settings: extractor)
    return extractor
