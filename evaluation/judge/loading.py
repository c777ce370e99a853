"""What a judge is: an answer with all it may be held against goes in, a Multiscale Logical Evaluation comes out.

Two judges stand behind the protocol `Judge`: the deterministic local one (`sage_ad.evaluation.judge.local`) and a language
model behind an OpenAI-compatible endpoint (`sage_ad.evaluation.judge.llm`). Both follow `rubric.yaml`. An answer that cannot be
judged comes back with null levels and the reason in `MLEScore.unscored`; no judge invents a number.
"""

from __future__ import annotations

from typing import Any

from sage_ad.evaluation.inspection import LOCAL_JUDGE, Judge
from sage_ad.vlm.errors import InputError


def load_judge(name: str = LOCAL_JUDGE, **settings: Any) -> Judge:
    """Makes a judge by name.

    Args:
        name: "local", or the URL of an OpenAI-compatible endpoint ("http://host:port/v1#model").
        settings: passed to the judge's constructor.

    Raises:
        InputError: the name is neither.
    """
    if name == LOCAL_JUDGE:
        from sage_ad.evaluation.judge.local import LocalJudge

        return LocalJudge(**settings)
    if name.startswith(("http://", "https://")):
        from sage_ad.evaluation.judge.llm import LLMJudge

        return LLMJudge(name, **settings)
    raise InputError(
        f"There is no judge named {name!r}: use 'local', or the URL of an OpenAI-compatible server such as "
        "http://localhost:8000/v1#model."
    )
