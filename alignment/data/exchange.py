"""Ranked answers to and from what others use: AD-PL records, and the columns of TRL's preference data.

AD-PL is read and written by `sage_ad.evaluation.datasets.adpl`. A row of TRL data is one pair, `prompt`, `chosen`, `rejected` and
`images` (plain text or messages, with or without a prompt of its own); read, it is a list of two answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sage_ad.alignment.data.judge_scores import means_of
from sage_ad.alignment.data.pairs import select_pairs, unscored_pairs
from sage_ad.evaluation.ranked import RankedAnswers, read_ranked, write_ranked
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.files import write_whole

Target = Literal["ranked", "adpl", "trl"]
TABLES = (".jsonl", ".parquet")


def read_preferences(path: Path) -> list[RankedAnswers] | None:
    """Ranked answers of a file or set that holds such already: our lines, TRL's columns, or AD-PL.

    Returns:
        The lines; None for a set of labelled images, for which answers have to be written.

    Raises:
        InputError: the file cannot be read, or a row is wrong; the message names it.
    """
    if path.is_file() and path.suffix in TABLES:
        rows = list(_rows(path))
        first = rows[0] if rows else {}
        if "chosen" in first and "rejected" in first:
            return list(from_trl(rows, path.name))
        return read_ranked(path)
    from sage_ad.evaluation.datasets import detect_format, open_dataset

    if detect_format(path) != "adpl":
        return None
    from sage_ad.evaluation.datasets.adpl import ADPL, ranked_lines

    dataset = open_dataset(path, "adpl")
    assert isinstance(dataset, ADPL)
    lines = [RankedAnswers.model_validate(line) for line in ranked_lines(dataset) if len(line["answers"]) > 1]
    if not lines:
        raise InputError(f"{path} holds no question with two or more ranked answers; check its answer_options.")
    return lines


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        from datasets import Dataset

        yield from Dataset.from_parquet(str(path))
        return
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise InputError(f"{path}, line {number}: this is no JSON object; mend or remove this line.")
                    yield row
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read as JSON lines ({error}); mend it or give another file.") from None


def from_trl(rows: Iterable[Mapping[str, Any]], source: str = "the data") -> Iterator[RankedAnswers]:
    """Rows of TRL preference data as ranked answers, the chosen one first.

    Raises:
        InputError: a row has no question or the two answers are missing or alike.
    """
    for number, row in enumerate(rows, start=1):
        prompt, chosen, rejected = row.get("prompt"), row.get("chosen"), row.get("rejected")
        if prompt is None and isinstance(chosen, list) and isinstance(rejected, list):
            shared = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), 0)
            prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
        question, better, worse = (_text(part) for part in (prompt, chosen, rejected))
        if not question or not better or not worse or better == worse:
            raise InputError(
                f"{source}, row {number}: prompt, chosen or rejected is empty, or the answers are alike; mend or remove it."
            )
        images = [
            name for name in map(_path, row.get("images") or ([row["image"]] if row.get("image") else [])) if name
        ]
        yield RankedAnswers(
            id=str(row.get("id") or number),
            image=images[-1] if images else None,
            reference=images[0] if len(images) > 1 else None,
            question=question,
            answers=[better, worse],
            rank_source="expert",
        )


def _text(part: Any) -> str:
    """The words of a text or of messages (of a prompt: what the user says)."""
    if isinstance(part, str):
        return part.strip()
    texts = []
    for message in part or []:
        content = message.get("content")
        if isinstance(content, str):
            texts.append(content)
        else:
            texts += [piece["text"] for piece in content or [] if piece.get("type") == "text"]
    return "\n".join(text.strip() for text in texts if text and text.strip())


def _path(image: Any) -> str | None:
    return image if isinstance(image, str) else image.get("path") if isinstance(image, Mapping) else None


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
    """Writes ranked answers in one of the three forms.

    Returns:
        How many records were written (AD-PL: one an image; TRL: one a pair).

    Raises:
        InputError: the file cannot be written, or the pairs need scores that are missing.
    """
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
