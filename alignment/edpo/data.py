"""Preference data for E-DPO: columns in, token ids and pairs out; and what a batch of them is.

Columns: `prompt`, `images` (or `image`, optional), and either `answers` (best first) with `scores` (None: not scored), or
TRL's `chosen` and `rejected`, which are two ranked answers without scores.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sage_ad.alignment.data.pairs import AnswerPair, select_pairs, unscored_pairs
from sage_ad.alignment.data.prefix_sharing import pack_answers
from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

    from sage_ad.alignment.data.prompts import PromptEncoder
    from sage_ad.alignment.edpo.config import EDPOConfig

logger = logging.getLogger(__name__)

PREPARED = ("answer_ids", "pair_winners", "pair_losers", "pair_gaps")
REFERENCE = "ref_logps"
TRAIN = "train"
"""What TRL calls the data that is trained on."""


def named_columns(dataset: Dataset) -> Dataset:
    """The set with `pictures` in place of `image` or `images`, and `answers` in place of `chosen` and `rejected`.

    Raises:
        InputError: a column is missing.
    """
    names = dataset.column_names
    if "image" in names:
        dataset = dataset.map(lambda row: {"pictures": [row["image"]]}, remove_columns=["image"])
    elif "images" in names:
        dataset = dataset.rename_column("images", "pictures")
    if "answers" not in names and {"chosen", "rejected"} <= set(names):
        both = zip(dataset["chosen"], dataset["rejected"], strict=True)
        dataset = dataset.remove_columns(["chosen", "rejected"]).add_column("answers", [[c, r] for c, r in both])
    missing = [name for name in ("prompt", "answers") if name not in dataset.column_names]
    if missing:
        raise InputError(
            f"The preference data has no column {' and no '.join(missing)}; give prompt and answers (best first) with "
            "scores, or prompt, chosen and rejected."
        )
    return dataset


def pairs_of_row(row: Mapping[str, Any], args: EDPOConfig, choice: str | None = None) -> list[AnswerPair]:
    """The pairs of one list.

    Args:
        row: with `answers` and, where known, `scores`.
        args: how pairs are chosen.
        choice: in place of `args.pairs`.

    Raises:
        InputError: scores are needed and there are none, or they do not fit the answers.
    """
    scores = row.get("scores")
    if scores is None:
        if args.eta:
            raise InputError(
                f"eta={args.eta:g} weighs entropy gaps, but there are answers without scores; run sage-train score "
                "first, or set eta to 0."
            )
        return unscored_pairs(len(row["answers"]), choice or args.pairs)  # type: ignore[arg-type]
    if len(scores) != len(row["answers"]):
        raise InputError(f"A list of {len(row['answers'])} answers has {len(scores)} scores; give one for each.")
    return select_pairs(scores, choice or args.pairs, args.entropy)  # type: ignore[arg-type]


def prepare_dataset(dataset: Dataset, encoder: PromptEncoder, args: EDPOConfig, name: str) -> Dataset:
    """Chooses the pairs of every list and tokenises the answers in them; lists without a pair are left out and counted.

    Returns:
        The rows that are left, with `answer_ids`, `pair_winners` and `pair_losers` (places in `answer_ids`),
        `pair_gaps`, and (words alone) `prompt_ids`.

    Raises:
        InputError: no list has a pair.
    """
    light = dataset.remove_columns(["pictures"]) if "pictures" in dataset.column_names else dataset
    pictured = light is not dataset
    kept_rows: list[int] = []
    columns: dict[str, list[Any]] = {key: [] for key in PREPARED}
    for number, row in enumerate(light):
        # Rewards are measured on every pair, whatever is trained on, so that runs can be compared.
        pairs = pairs_of_row(row, args, None if name == TRAIN else "all")
        if not pairs:
            continue
        used = sorted({place for pair in pairs for place in (pair.winner, pair.loser)})
        # How many pictures a prompt shows decides its text; the pictures themselves are not decoded here.
        shown = {**row, "pictures": [None] * _count(dataset, number)} if pictured else row
        prepared = encoder.prepare(shown, used)
        prepared["answer_ids"] = _cut(prepared, args.max_length)
        kept_rows.append(number)
        prepared["pair_winners"] = [used.index(pair.winner) for pair in pairs]
        prepared["pair_losers"] = [used.index(pair.loser) for pair in pairs]
        prepared["pair_gaps"] = [float(pair.gap) for pair in pairs]
        for key, value in prepared.items():
            columns.setdefault(key, []).append(value)
    if not kept_rows:
        raise InputError(
            f"None of the {len(dataset)} lists of the {name} data has two answers with different scores, so entropy "
            "selects nothing; mend the data or the judge first (sage-train score tells how scores spread)."
        )
    if left_out := len(dataset) - len(kept_rows):
        logger.warning(
            "%d of %d lists of the %s data have no two answers with different scores and are left out.",
            left_out,
            len(dataset),
            name,
        )
    chosen = dataset if not left_out else dataset.select(kept_rows)
    for key, values in columns.items():
        if key in chosen.column_names:
            chosen = chosen.remove_columns([key])
        chosen = chosen.add_column(key, values)
    return chosen


def _count(dataset: Dataset, number: int) -> int:
    """Pictures of a row, counted without decoding them."""
    column = dataset.with_format("arrow")[number]["pictures"]
    return len(column[0])


def _cut(prepared: Mapping[str, Any], max_length: int | None) -> list[list[int]]:
    """Answers cut to what `max_length` leaves them behind a prompt of words (a prompt with pictures is never cut)."""
    answers = prepared["answer_ids"]
    if max_length is None:
        return answers
    room = max_length - len(prepared.get("prompt_ids", ()))
    if room < 1:
        raise InputError(
            f"A prompt of {len(prepared['prompt_ids'])} tokens fills max_length={max_length}; raise it, or leave it out."
        )
    return [ids[:room] for ids in answers]


@dataclass
class RankedCollator:
    """Rows to a batch: the prompts' inputs, the packed answers, and the pairs among them.

    Beside the prompts' inputs a batch holds `answer_ids` and `answer_owners` (batch, a) of `pack_answers`; `pair_rows`,
    `pair_winners`, `pair_losers` and `pair_gaps` (pairs,); and `ref_logps` (batch, a) once the reference was asked.
    """

    encoder: PromptEncoder

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = self.encoder.encode(rows)
        ids, owners = pack_answers([row["answer_ids"] for row in rows], self.encoder.pad_id)
        batch["answer_ids"], batch["answer_owners"] = ids, owners
        counts = [len(row["pair_winners"]) for row in rows]
        batch["pair_rows"] = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(counts))
        for name, kind in (("pair_winners", torch.long), ("pair_losers", torch.long), ("pair_gaps", torch.float32)):
            batch[name] = torch.tensor([value for row in rows for value in row[name]], dtype=kind)
        if REFERENCE in rows[0]:
            known = torch.zeros(ids.shape)
            for i, row in enumerate(rows):
                known[i, : len(row[REFERENCE])] = torch.tensor(row[REFERENCE])
            batch[REFERENCE] = known
        return batch


BATCH_EXTRAS = ("answer_ids", "answer_owners", "pair_rows", "pair_winners", "pair_losers", "pair_gaps", REFERENCE)


def split_batch(batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The prompts' inputs, and the rest of a batch of `RankedCollator`."""
    prompt = {key: value for key, value in batch.items() if key not in BATCH_EXTRAS}
    return prompt, {key: batch[key] for key in BATCH_EXTRAS if key in batch}
