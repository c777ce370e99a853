"""Trains `evaluation/judge/answer_classifier.safetensors`: what an answer says, read together with its question.

    python -m benchmarks.train_answer_classifier --out evaluation/judge/answer_classifier.safetensors
    python -m benchmarks.train_answer_classifier --hold-out second      accuracy on a pool that it is not trained on

Three outputs are learned: the answer says yes to the question; it reports that something is wrong; it is vague. The texts:
the ranked pools of tests/data (their rank says what an answer must mean), short replies with their questions
(short_replies.yaml), the exemplars of praise and complaint, and made answers that join a reply of one line with a reason
of another, so that verdict and reason are learned apart. All of it is the work of the project's own writers.

The lower half of all-MiniLM-L6-v2 stays as it is and is computed once; low-rank changes (LoRA, rank 16) of the upper half
and the output layer are learned: 335,000 numbers, about five minutes on one idle core.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
POOLS = ("first", "second", "development", "third", "fourth", "training", "training_a", "training_b")
UNKNOWN = -1.0
RANK, TOP, WIDTH, OUTPUTS = 16, 3, 384, 3
EPOCHS, BATCH, RATE, MADE = 3, 32, 1.5e-3, 2500
OPENING = re.compile(r"^([^.:;,!?]{1,45})([.:;,!?])\s+(.*)$")


class Sample(NamedTuple):
    """A question, an answer, and what it says: 1, 0, 0.5 (nothing either way) or UNKNOWN."""

    question: str
    answer: str
    yes: float
    defect: float
    vague: float


# --------------------------------------------------------------------------------------------------------------- data


def read_pool(name: str) -> list[dict[str, Any]]:
    """The lines of one ranked pool."""
    text = (DATA / f"ranked_{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def ranked_samples(line: dict[str, Any]) -> Iterator[Sample]:
    """What rank and gold say of each answer: the last has the wrong verdict, the last but two is the vague one."""
    verdict, anomalous = line["gold"].get("verdict"), line["gold"].get("anomalous")
    count = len(line["answers"])
    for index, answer in enumerate(line["answers"]):
        last = index == count - 1
        yes = UNKNOWN if verdict is None else float(verdict != last)
        if anomalous is None or (anomalous and last):
            defect = UNKNOWN
        else:
            defect = 1.0 if anomalous else float(index >= count - 2)
        yield Sample(line["question"], answer, yes, defect, UNKNOWN if last else float(index == count - 3))


def reason_of(answer: str) -> tuple[str, str] | None:
    """The stop and the reason behind a short opening ("No: the rim is chipped"); None without one."""
    found = OPENING.match(answer)
    if not found or len(found[1].split()) > 7 or len(found[3].split()) < 4:
        return None
    return found[2], found[3]


def reasons(lines: Sequence[dict[str, Any]], exemplars: dict[str, list[str]]) -> dict[float, list[tuple[str, str]]]:
    """Reasons that report nothing wrong (0) and reasons that report something (1), with the stop before them."""
    found: dict[float, list[tuple[str, str]]] = {0.0: [], 1.0: []}
    for line in lines:
        anomalous, answers = line["gold"].get("anomalous"), line["answers"]
        if anomalous is None:
            continue
        for index, answer in enumerate(answers):
            last = index == len(answers) - 1
            if index == 1 or (last and anomalous and _mentions(line["gold"].get("defect"), answer)):
                continue
            if reason := reason_of(answer):
                reports = (not last) if anomalous else index >= len(answers) - 2
                found[float(reports)].append(reason)
    for name, value in (("good", 0.0), ("bad", 1.0)):
        found[value] += [(".", text[0].upper() + text[1:]) for text in exemplars[name]]
    return found


def _mentions(defect: str | None, answer: str) -> bool:
    return any(len(word) > 3 and word[:5] in answer.lower() for word in (defect or "").lower().split())


def reply_samples(replies: Sequence[dict[str, Any]]) -> Iterator[Sample]:
    """Short replies; where the question is about the part as a whole, they say its state too."""
    for entry in replies:
        for yes, name in ((1.0, "yes"), (0.0, "no")):
            defect = UNKNOWN if entry.get("topical") else float((entry["means"] == "bad") == bool(yes))
            for reply in entry[name]:
                yield Sample(entry["question"], reply if reply[-1] in ".!?" else reply + ".", yes, defect, 1.0)


def made_samples(
    replies: Sequence[dict[str, Any]], bodies: dict[float, list[tuple[str, str]]], count: int, rng: random.Random
) -> Iterator[Sample]:
    """Replies joined with reasons from anywhere, so that the reason tells nothing of the verdict."""
    for _ in range(count):
        entry = rng.choice(replies)
        yes = rng.randint(0, 1)
        reply = rng.choice(entry["yes" if yes else "no"]).rstrip(".!?")
        passes = (entry["means"] == "bad") != bool(yes)
        defect = float(rng.randint(0, 1)) if passes else float(rng.random() >= 0.15)
        stop, reason = rng.choice(bodies[defect])
        if rng.random() < 0.4:
            stop = rng.choice([".", ":", ",", ";", " -"])
        if stop == ".":
            reason = reason[0].upper() + reason[1:]
        if rng.random() < 0.15:
            reply = ("Yes, " if yes else "No, ") + reply[0].lower() + reply[1:]
        # A rejection whose reason finds nothing wrong contradicts itself: what it reports is open.
        known = not entry.get("topical") and (passes or defect == 1.0)
        yield Sample(entry["question"], f"{reply}{stop} {reason}", float(yes), defect if known else UNKNOWN, 0.0)


def samples(lines: Sequence[dict[str, Any]], seed: int) -> list[Sample]:
    """All training samples that may be drawn from ranked lines, replies and exemplars."""
    import yaml

    from sage_ad.evaluation.text.lexicon import exemplars

    rng = random.Random(seed)
    short = yaml.safe_load((DATA / "short_replies.yaml").read_text(encoding="utf-8"))
    questions = [line["question"] for line in lines]
    found = [sample for line in lines for sample in ranked_samples(line)]
    found += reply_samples(short["questions"])
    for name, defect in (("good", 0.0), ("bad", 1.0)):
        found += [Sample(rng.choice(questions), text, UNKNOWN, defect, UNKNOWN) for text in exemplars()[name]]
    found += made_samples(short["questions"], reasons(lines, exemplars()), MADE, rng)
    for text in short["aside"]:
        found += [Sample(question, text, 0.5, 0.5, UNKNOWN) for question in rng.sample(questions, 4)]
    return found


# -------------------------------------------------------------------------------------------------------------- model


class Trainee:
    """MiniLM with low-rank changes in its upper layers, and an output layer over three pooled vectors."""

    def __init__(self, seed: int) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        from sage_ad.vlm.weights.embedded import minilm_folder

        torch.manual_seed(seed)
        self.tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
        self.model = AutoModel.from_pretrained(minilm_folder(), add_pooling_layer=False).eval().requires_grad_(False)
        layers = self.model.encoder.layer
        self.lower, self.upper = layers[: len(layers) - TOP], layers[len(layers) - TOP :]
        self.changes: dict[str, torch.nn.Parameter] = {}
        for name, module in list(self.model.named_modules()):
            if isinstance(module, torch.nn.Linear) and int(name.split(".")[2]) >= len(layers) - TOP:
                self._adapt(name, module)
        self.head = torch.nn.Linear(3 * WIDTH, OUTPUTS)
        self.dropout = torch.nn.Dropout(0.1)

    def _adapt(self, name: str, module: torch.nn.Linear) -> None:
        import torch

        down = torch.nn.Parameter(torch.randn(RANK, module.in_features) / math.sqrt(module.in_features))
        up = torch.nn.Parameter(torch.zeros(module.out_features, RANK))
        self.changes |= {f"{name}.a": down, f"{name}.b": up}
        module.register_forward_hook(lambda _, inputs, output: output + inputs[0] @ down.T @ up.T)

    def tokens(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Token ids and types of questions with their answers."""
        from sage_ad.evaluation.judge.answer_classifier import LONGEST

        found = self.tokenizer(
            [question for question, _ in pairs],
            [answer for _, answer in pairs],
            truncation=True,
            max_length=LONGEST,
        )
        return list(zip(found["input_ids"], found["token_type_ids"], strict=True))

    def below(self, ids: torch.Tensor, types: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Hidden states (batch, tokens, width) under the layers that learn."""
        hidden = self.model.embeddings(input_ids=ids, token_type_ids=types)
        return self._through(self.lower, hidden, mask)

    def above(self, hidden: torch.Tensor, types: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Log-odds (batch, 3) from the hidden states under the layers that learn."""
        import torch

        from sage_ad.vlm.weights.minilm import mean_over

        hidden = self._through(self.upper, self.dropout(hidden), mask)
        pooled = [hidden[:, 0], mean_over(hidden, mask * types), mean_over(hidden, mask * (1 - types))]
        return self.head(self.dropout(torch.cat(pooled, dim=1)))

    @staticmethod
    def _through(layers: Any, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        shut = (1.0 - mask[:, None, None, :].float()) * -1e4
        for layer in layers:
            output = layer(hidden, attention_mask=shut)
            hidden = output[0] if isinstance(output, tuple) else output
        return hidden

    def train(self, learning: bool) -> None:
        """Dropout on or off."""
        self.model.train(learning)
        self.model.embeddings.eval()
        self.lower.eval()
        self.dropout.train(learning)

    def weights(self) -> dict[str, torch.Tensor]:
        """What is learned, as it is shipped."""
        named = {**self.changes, "head.weight": self.head.weight, "head.bias": self.head.bias}
        return {name: value.detach().half().contiguous() for name, value in named.items()}


def batches(lengths: Sequence[int], rng: random.Random) -> list[list[int]]:
    """Indices in batches of like length, in random order."""
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], rng.random()))
    found = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    rng.shuffle(found)
    return found


def padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Rows of numbers as one tensor, zeros behind."""
    import torch

    return torch.nn.utils.rnn.pad_sequence([torch.as_tensor(row) for row in rows], batch_first=True)


def fit(data: Sequence[Sample], seed: int, tell: Callable[[str], None] = print) -> Trainee:
    """Trains on samples: binary cross-entropy with softened targets, unknown targets left out, AdamW, linear decay."""
    import torch

    trainee, rng = Trainee(seed), random.Random(seed)
    trainee.train(False)
    tokens = trainee.tokens([(one.question, one.answer) for one in data])
    lengths = [len(ids) for ids, _ in tokens]
    kept: list[torch.Tensor] = [torch.empty(0)] * len(data)
    with torch.no_grad():
        for batch in batches(lengths, rng):
            ids, types = (padded([tokens[index][part] for index in batch]) for part in (0, 1))
            mask = padded([[1] * lengths[index] for index in batch])
            for index, hidden in zip(batch, trainee.below(ids, types, mask), strict=True):
                kept[index] = hidden[: lengths[index]].half()
    targets = torch.tensor([[one.yes, one.defect, one.vague] for one in data])
    learned = [*trainee.changes.values(), *trainee.head.parameters()]
    optimiser = torch.optim.AdamW(learned, lr=RATE, weight_decay=0.01)
    steps, step = EPOCHS * math.ceil(len(data) / BATCH), 0
    trainee.train(True)
    for epoch in range(EPOCHS):
        losses = []
        for batch in batches(lengths, rng):
            types = padded([tokens[index][1] for index in batch])
            mask = padded([[1] * lengths[index] for index in batch])
            hidden = torch.nn.utils.rnn.pad_sequence([kept[index].float() for index in batch], batch_first=True)
            loss = _loss(trainee.above(hidden, types, mask), targets[batch])
            for group in optimiser.param_groups:
                group["lr"] = RATE * (min(1.0, step / 50) * (1 - step / steps) + 1e-3)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            optimiser.step()
            step += 1
            losses.append(float(loss.detach()))
        tell(f"epoch {epoch + 1}: loss {sum(losses) / len(losses):.3f}")
    trainee.train(False)
    return trainee


def _loss(odds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    import torch

    weight = (targets >= 0).float() * torch.tensor([1.0, 1.0, 0.5])
    softened = targets.clamp(min=0) * 0.94 + 0.03
    losses = torch.nn.functional.binary_cross_entropy_with_logits(odds, softened, reduction="none")
    return (losses * weight).sum() / weight.sum()


def accuracy(trainee: Trainee, lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Share of answers of a pool that are read rightly, for each output."""
    import torch

    data = [sample for line in lines for sample in ranked_samples(line)]
    odds = []
    with torch.no_grad():
        for start in range(0, len(data), BATCH):
            tokens = trainee.tokens([(one.question, one.answer) for one in data[start : start + BATCH]])
            ids, types = (padded([pair[part] for pair in tokens]) for part in (0, 1))
            mask = padded([[1] * len(pair[0]) for pair in tokens])
            odds += trainee.above(trainee.below(ids, types, mask), types, mask).tolist()
    found = {}
    for part, name in enumerate(("yes", "defect", "vague")):
        wanted = [(one.yes, one.defect, one.vague)[part] for one in data]
        known = [(row[part] > 0) == (value > 0.5) for row, value in zip(odds, wanted, strict=True) if value >= 0]
        found[name] = round(sum(known) / len(known), 4)
    return found


def main() -> None:
    """Trains on all pools and writes the weights, or on all but one and tells the accuracy on that."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file to write, .safetensors")
    parser.add_argument("--hold-out", choices=POOLS, help="train without this pool and measure on it")
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    lines = [line for name in POOLS if name != wanted.hold_out for line in read_pool(name)]
    data = samples(lines, wanted.seed)
    print(f"{len(data)} samples from {len(lines)} ranked lines")
    trainee = fit(data, wanted.seed)
    if wanted.hold_out:
        print(f"on {wanted.hold_out}, not trained on: {accuracy(trainee, read_pool(wanted.hold_out))}")
    if wanted.out:
        save_file(trainee.weights(), wanted.out)
        print(f"written: {wanted.out}")


if __name__ == "__main__":
    main()
