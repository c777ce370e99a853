"""Stage 1 examples to what the model learns from: one prompt a part, its questions and answers behind it.

The five questions of a part share picture, facts and measurement. They stand in one packed sequence (see
`sage_ad.alignment.data.prefix_sharing`), so that this prefix is computed once for all five. The loss is on the answers alone.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    from sage_ad.alignment.data.features import VisualInputCache
    from sage_ad.alignment.data.questions import Stage1Example
    from sage_ad.vlm.sage.processing_sage import SageProcessor
    from sage_ad.vlm.sage.prompts import FactMode
    from sage_ad.vlm.sage.visual_inputs import VisualInputs

FACT_TASKS_A_BATCH = 8


@dataclass(frozen=True)
class PartTask:
    """All questions about one part, or one task of writing facts (then `pictured` is false).

    Attributes:
        examples: they share picture, reference and facts.
    """

    examples: tuple[Stage1Example, ...]

    @property
    def pictured(self) -> bool:
        """Whether a picture is looked at."""
        return self.examples[0].picture is not None


def part_tasks(examples: Sequence[Stage1Example]) -> list[PartTask]:
    """Examples of one group, put together; tasks of writing facts stand alone."""
    tasks = []
    for _, own in groupby(examples, key=lambda e: (e.group, e.task, e.id if e.task == "facts" else "")):
        tasks.append(PartTask(tuple(own)))
    return tasks


def batches_of(tasks: Sequence[PartTask], parts: int, seed: int) -> list[list[PartTask]]:
    """Tasks in batches of `parts`, pictured ones and others apart, drawn by seed."""
    generator = random.Random(seed)
    batches = []
    for pictured, size in ((True, parts), (False, FACT_TASKS_A_BATCH)):
        own = [task for task in tasks if task.pictured is pictured]
        generator.shuffle(own)
        batches += [own[start : start + size] for start in range(0, len(own), size)]
    generator.shuffle(batches)
    return batches


class _Batches:
    """Batches as a data set for `transformers.Trainer` (one item is one batch), made when they are asked for.

    Args:
        tasks: what is learnt.
        processor: makes tokens.
        cache: frozen features of the parts.
        mode: how facts reach the model.
        parts: parts a batch; each brings five questions.
        seed: order and batches.
        calibration: log-odds of the evidence by how it was measured (`sage_ad.alignment.sft.calibration`).
    """

    def __init__(
        self,
        tasks: Sequence[PartTask],
        processor: SageProcessor,
        cache: VisualInputCache,
        *,
        mode: FactMode,
        parts: int,
        seed: int,
        calibration: Mapping[str, Sequence[float]],
    ) -> None:
        if not tasks:
            raise InputError("There is nothing to learn from: no labelled part was found; check --data.")
        self.batches = batches_of(tasks, parts, seed)
        self._processor, self._cache, self._mode, self._calibration = processor, cache, mode, calibration

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, Any]:
        tasks = self.batches[index]
        make = self._pictured if tasks[0].pictured else self._written
        return make(tasks)

    def _pictured(self, tasks: Sequence[PartTask]) -> dict[str, Any]:
        raise TypeError("a kind of batch says how it shows pictures")

    def _written(self, tasks: Sequence[PartTask]) -> dict[str, Any]:
        raise TypeError("a kind of batch says how it asks for facts")

    def _visual_inputs(self, task: PartTask) -> VisualInputs:
        first = task.examples[0]
        assert first.picture is not None
        return self._cache.get(first.picture, first.reference)


class PartBatches(_Batches):
    """Batches of a model with a frozen encoder: features from disk, the five questions of a part in one sequence."""

    def _pictured(self, tasks: Sequence[PartTask]) -> dict[str, Any]:
        from sage_ad.vlm.sage.generation import prefix_inputs

        visuals = [self._visual_inputs(task) for task in tasks]
        inputs = prefix_inputs(
            self._processor,
            visuals,
            [training_measurement(visual, task) for visual, task in zip(visuals, tasks, strict=True)],
            [list(task.examples[0].facts) for task in tasks],
            [[e.question for e in task.examples] for task in tasks],
            self._mode,
            self._calibration,
        )
        tails = inputs.pop("tails")
        branches = [
            [(tail, self._answer(e.answer)) for tail, e in zip(own, task.examples, strict=True)]
            for own, task in zip(tails, tasks, strict=True)
        ]
        return {"prompt": inputs, **packed(branches)}

    def _written(self, tasks: Sequence[PartTask]) -> dict[str, Any]:
        from sage_ad.vlm.sage.generation import padded_left

        heads, branches = [], []
        for task in tasks:
            example = task.examples[0]
            head = self._processor.prompt_ids(example.question, image=False)
            # The last token stands alone behind the prefix: a branch has to begin with a token of its own.
            heads.append(head[:-1])
            branches.append([(head[-1:], self._answer(example.answer))])
        prompt = padded_left(heads, self._processor.tokenizer.pad_token_id or 0)
        return {"prompt": prompt, **packed(branches, state=False)}

    def _answer(self, text: str) -> list[int]:
        ids: list[int] = self._processor.tokenizer(
            text + self._processor.tokenizer.eos_token, add_special_tokens=False
        )["input_ids"]
        return ids


class PictureBatches(_Batches):
    """Batches of a model around a vision-language model with eyes of its own: pixels, one sequence a question."""

    def _pictured(self, tasks: Sequence[PartTask]) -> dict[str, Any]:
        from sage_ad.vlm.sage.generation import evidence_log_odds

        rows = [(task, example) for task in tasks for example in task.examples]
        visuals = [self._visual_inputs(task) for task, _ in rows]
        shown = {id(task): (e.picture, e.reference) for task, e in rows}
        pictures = {key: (p.load() if p else None, r.load() if r else None) for key, (p, r) in shown.items()}
        made = self._processor(
            images=[pictures[id(task)][0] for task, _ in rows],
            text=[e.question for _, e in rows],
            references=[[r] if (r := pictures[id(task)][1]) is not None else None for task, _ in rows],
            facts=[list(e.facts) for _, e in rows],
            measured=[training_measurement(visual, task) for visual, (task, _) in zip(visuals, rows, strict=True)],
            evidence=[evidence_log_odds(visual, self._calibration) for visual in visuals],
            answers=[e.answer for _, e in rows],
            mode=self._mode,
        )
        return dict(made)

    def _written(self, tasks: Sequence[PartTask]) -> dict[str, Any]:
        asked = [task.examples[0] for task in tasks]
        return dict(self._processor(text=[e.question for e in asked], answers=[e.answer for e in asked]))


def training_measurement(visual: VisualInputs, task: PartTask) -> str:
    """The measurement in words, as an inspection of the part has it."""
    from sage_ad.evaluation.questions import product_words

    example = task.examples[0]
    return visual.measured(None if example.product == product_words(None) else example.product, example.names)


def packed(branches: Sequence[Sequence[tuple[list[int], list[int]]]], state: bool = True) -> dict[str, Any]:
    """Questions and answers of each part one after another.

    Args:
        branches: by part and question, the tokens of the question's tail and of its answer.
        state: whether the answers begin with a verdict token.

    Returns:
        `ids` and `owners` of `pack_answers`, `labels` (batch, length; -100 on questions and padding), and `state_mask`,
        true at the last token of each question.
    """
    import torch

    from sage_ad.alignment.data.prefix_sharing import pack_answers

    ids, owners = pack_answers([[question + answer for question, answer in row] for row in branches])
    labels = torch.full_like(ids, -100)
    states = torch.zeros_like(ids, dtype=torch.bool)
    for i, row in enumerate(branches):
        start = 0
        for question, answer in row:
            begin = start + len(question)
            labels[i, begin : begin + len(answer)] = torch.tensor(answer)
            states[i, begin - 1] = state
            start = begin + len(answer)
    return {"ids": ids, "owners": owners, "labels": labels, "state_mask": states}
