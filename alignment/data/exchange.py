"""Ranked answers as others use them: AD-PL records, and the columns of TRL's preference data.

Parsing is the business of `sage_ad.evaluation.preference_data`, AD-PL's of `sage_ad.evaluation.datasets.adpl`. A row of TRL data
is one pair, `prompt`, `chosen`, `rejected` and `images`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from sage_ad.alignment.data.judge_scores import means_of
from sage_ad.alignment.data.pairs import select_pairs, unscored_pairs
from sage_ad.evaluation.preference_data import beside
from sage_ad.evaluation.ranked import RankedAnswers, write_ranked
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.files import write_whole

Target = Literal["ranked", "adpl", "trl"]


def to_trl(lines: Iterable[RankedAnswers], pairs: str = "extreme", entropy: str = "term") -> Iterator[dict[str, Any]]:
    """Ranked answers as rows of TRL preference data, one a pair, with the entropy gap where there are scores.

    Args:
        lines: ranked answers.
        pairs, entropy: which pairs of each list (`sage_ad.alignment.data.pairs`).
    """
    for line in lines:
        scores = means_of(line)
        found = (
            unscored_pairs(len(line.answers), pairs)  # type: ignore[arg-type]
            if scores is None
            else select_pairs(scores, pairs, entropy)  # type: ignore[arg-type]
        )
        for pair in found:
            yield {
                "id": f"{line.id}/{pair.winner + 1}-{pair.loser + 1}",
                "prompt": [{"role": "user", "content": question_in_words(line)}],
                "chosen": [{"role": "assistant", "content": line.answers[pair.winner]}],
                "rejected": [{"role": "assistant", "content": line.answers[pair.loser]}],
                "images": [name for name in (line.reference, line.image) if name],
                "entropy_gap": round(pair.gap, 6),
            }


def question_in_words(line: RankedAnswers) -> str:
    """The facts, if there are any, and the question: the prompt of a model that reads words."""
    known = "\n".join(f"- {fact}" for fact in line.facts)
    return f"Known facts:\n{known}\n{line.question}" if known else line.question


def write_preferences(
    lines: Sequence[RankedAnswers], path: Path, target: Target, pairs: str = "extreme", entropy: str = "term"
) -> int:
    """Writes ranked answers in one of the three forms; paths of pictures below the file's folder become relative.

    Returns:
        How many records were written (AD-PL: one an image; TRL: one a pair).

    Raises:
        InputError: the file cannot be written, or the pairs need scores that are missing.
    """
    lines = beside(lines, path.parent)
    if target == "ranked":
        return write_ranked(path, lines)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if target == "adpl":
            from sage_ad.evaluation.datasets.adpl import write_adpl

            return write_adpl((line.model_dump(mode="json") for line in lines), path)
        rows = list(to_trl(lines, pairs, entropy))
        write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another file.") from None
    return len(rows)
