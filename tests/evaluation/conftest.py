"""The real local judge, loaded once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from evaluation.inspection import MLEScore
from evaluation.judging import Gold, Judge, JudgeRequest, load_judge


@pytest.fixture(scope="session")
def local_judge() -> Judge:
    """The local judge with its real sentence encoder."""
    return load_judge("local")


@pytest.fixture(scope="session")
def score(local_judge: Judge) -> Callable[..., MLEScore]:
    """Scores one answer to a question about a scratched part, unless told otherwise."""
    scratched = Gold(
        verdict=False,
        anomalous=True,
        defect="scratch",
        place="upper left",
        reference_answer="False. There is a scratch in the upper left.",
    )

    def judge(
        answer: str, question: str = "Is this part free of defects?", gold: Gold | None = scratched, **more: object
    ) -> MLEScore:
        return local_judge.judge([JudgeRequest(question, answer, gold=gold, **more)])[0]  # type: ignore[arg-type]

    return judge
