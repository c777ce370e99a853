"""`sage-train score`: a judge's scores for ranked answers, once, ahead of training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sage_ad.vlm.commandline import quiet_libraries


def score_command(
    ranked: Annotated[
        Path, typer.Argument(help="Ranked answers, AD-PL, or TRL or LlamaFactory preference data.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for scored.jsonl, results.json and report.md; finished parts are kept there.")
    ],
    judge: Annotated[str, typer.Option(help="local, or http://host:port/v1#model.")] = "local",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Scores ranked answers and says how scores and entropy gaps spread; continues a stopped run."""
    quiet_libraries()
    from sage_ad.alignment.data.judge_scores import equal_everywhere, report_markdown, score_lines, spread
    from sage_ad.evaluation.judge.loading import load_judge
    from sage_ad.evaluation.preference_data import beside, read_answers
    from sage_ad.evaluation.ranked import write_ranked
    from sage_ad.evaluation.runs import Progress, finish

    lines = read_answers(ranked, out / "pictures")
    scored, problems = score_lines(lines, load_judge(judge), out=out, progress=Progress())
    write_ranked(out / "scored.jsonl", beside(scored, out))
    found = spread(scored)
    if sentence := equal_everywhere(found):
        problems.append(sentence)
    result = {"judge": judge, "scored": str(out / "scored.jsonl"), **found, "problems": problems}
    finish(result, report_markdown(found, judge, problems), out, json)
