"""Whole parts answered at once: state by evidence, verdict by the question's polarity, reasons in the model's words.

The picture, the facts and the measurement of a part are read once (a prefix), its questions share their key-value cache,
and several parts go through the model together. The answer's first words are not the language model's to choose: the
state is where the evidence and the model's own log-odds put it, the verdict follows from the state and from what the
question asserts. The model continues from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from sage_ad.vlm.sage.inference import SageInference
    from sage_ad.vlm.sage.modeling_sage import SageForConditionalGeneration
    from sage_ad.vlm.sage.prompts import FactMode, SagePrompts
    from sage_ad.vlm.sage.visual_inputs import VisualInputs

State = Literal["normal", "anomalous"]
OnText = Callable[[int, int, str], None]
"""Is given the numbers of part and question, and a new piece of its answer."""

FEW_ROWS = 8
"""Answers up to which a batch is written in one go: with so few, a row that ended costs next to nothing."""

UNCALIBRATED: Mapping[str, Sequence[float]] = {"references": (1.0, 0.0), "builtin": (1.0, 0.0)}
"""The margin itself as log-odds, for models that stage 1 has not calibrated."""

TURN = 4
"""Tokens after which answers that have ended leave a larger batch."""


@dataclass(frozen=True)
class PartQuery:
    """Questions about one part.

    Attributes:
        visual: what is seen of the part.
        questions: in words.
        polarities: for each question the state of the part that a "True" asserts; None if "yes" and "no" are no answers.
        facts: fact sentences.
        product: name of the part; None where it is not known.
        names: taught names that the defect may bear with their probabilities, the likeliest first.
    """

    visual: VisualInputs
    questions: tuple[str, ...]
    polarities: tuple[State | None, ...]
    facts: tuple[str, ...] = ()
    product: str | None = None
    names: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class PartReply:
    """What the model says of one part.

    Attributes:
        log_odds: the model's own log(P(anomalous) / P(normal)), mean over the questions.
        spread: highest minus lowest of these log-odds over the questions: 0 where the evidence alone decides.
        state: "anomalous" where the log-odds are above 0.
        verdicts: for each question as asked; None where it is no yes/no question.
        texts: the reasons, without state and verdict words.
    """

    log_odds: float
    spread: float
    state: State
    verdicts: tuple[bool | None, ...]
    texts: tuple[str, ...]


def evidence_log_odds(visual: VisualInputs, calibration: Mapping[str, Sequence[float]]) -> float:
    """Calibrated log(P(anomalous) / P(normal)) of the evidence: factor * margin + offset, by how it was measured."""
    factor, offset = calibration[visual.compared]
    return factor * visual.margin + offset


def prefix_inputs(
    processor: SagePrompts,
    visuals: Sequence[VisualInputs],
    measured: Sequence[str],
    facts: Sequence[Sequence[str]],
    questions: Sequence[Sequence[str]],
    mode: FactMode,
    calibration: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """Inputs of the model for the prefix that each part's questions share, and the rest of each prompt.

    Args:
        processor: of a model with a frozen encoder.
        visuals, measured, facts, questions: by part; `measured` is `VisualInputs.measured`.
        mode: how facts reach the model.
        calibration: of the evidence.

    Returns:
        Inputs for `forward`, padded on the left, and `tails`: by part and question, the tokens behind the prefix.
    """
    import torch

    heads, tails = [], []
    for words, own, asked in zip(measured, facts, questions, strict=True):
        prompts = [processor.prompt_ids(q, facts=own, measured=words, mode=mode) for q in asked]
        # At least one token is left to each.
        length = min(common_length(prompts), min(map(len, prompts)) - 1)
        heads.append(prompts[0][:length])
        tails.append([prompt[length:] for prompt in prompts])
    inputs: dict[str, Any] = {
        **padded_left(heads, processor.tokenizer.pad_token_id or 0),
        "patch_features": torch.stack([s.features for s in visuals]).float(),
        "patch_evidence": torch.stack([s.evidence for s in visuals]).float(),
        "distinct": torch.stack([s.distinct for s in visuals]),
        "evidence_log_odds": torch.tensor([evidence_log_odds(s, calibration) for s in visuals]),
        "tails": tails,
    }
    if mode == "soft":
        inputs |= processor.fact_inputs(facts)
    return inputs


def common_length(rows: Sequence[Sequence[int]]) -> int:
    """Leading tokens that all rows share."""
    shortest = min(map(len, rows))
    return next((i for i in range(shortest) if len({row[i] for row in rows}) > 1), shortest)


def padded_left(rows: Sequence[Sequence[int]], pad: int) -> dict[str, torch.Tensor]:
    """Token ids of several rows as `input_ids` and `attention_mask`, padded in front, so that all rows end together."""
    import torch

    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[pad] * (longest - len(row)) + list(row) for row in rows]),
        "attention_mask": torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
    }


def answer_parts(
    model: SageForConditionalGeneration | SageInference,
    processor: SagePrompts,
    queries: Sequence[PartQuery],
    *,
    mode: FactMode,
    calibration: Mapping[str, Sequence[float]],
    max_new_tokens: int = 48,
    on_text: OnText | None = None,
) -> list[PartReply]:
    """Answers all questions about several parts.

    Args:
        model, processor: a SAGE model with a frozen encoder.
        queries: the parts; each may have its own number of questions.
        mode: how facts reach the model.
        calibration: of the evidence.
        max_new_tokens: limit of each reason.
        on_text: is given the numbers of part and question, and each new piece of the reason, as it is written.

    Returns:
        One reply a part, in order.
    """
    import torch

    if not queries:
        return []
    with torch.no_grad():
        rows = _Rows(model, processor, queries, mode, calibration)
        log_odds = rows.state_log_odds()
        replies, forced = [], []
        for query, own in zip(queries, log_odds.split([len(q.questions) for q in queries]), strict=True):
            state: State = "anomalous" if float(own.mean()) > 0 else "normal"
            verdicts = tuple(None if p is None else p == state for p in query.polarities)
            forced += [opening(state, verdict) for verdict in verdicts]
            replies.append((float(own.mean()), float(own.max() - own.min()), state, verdicts))
        streamer = None if on_text is None else _Pieces(processor, queries, on_text)
        texts = iter(rows.finish(forced, max_new_tokens, streamer))
    return [
        PartReply(*reply, tuple(next(texts) for _ in query.questions))
        for reply, query in zip(replies, queries, strict=True)
    ]


def opening(state: State, verdict: bool | None) -> str:
    """The first words of an answer, as the model was trained to begin: "anomalous. False." """
    return f"{state}." if verdict is None else f"{state}. {verdict}."


class _Rows:
    """All questions of all parts as rows of one batch; the prefixes' key-value cache stands behind them."""

    def __init__(
        self,
        model: SageForConditionalGeneration | SageInference,
        processor: SagePrompts,
        queries: Sequence[PartQuery],
        mode: FactMode,
        calibration: Mapping[str, Sequence[float]],
    ) -> None:
        import torch

        self.model, self.processor = model, processor
        inputs = prefix_inputs(
            processor,
            [q.visual for q in queries],
            [q.visual.measured(q.product, q.names) for q in queries],
            [list(q.facts) for q in queries],
            [list(q.questions) for q in queries],
            mode,
            calibration,
        )
        weight: torch.Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
        device = weight.device
        tails = [tail for own in inputs.pop("tails") for tail in own]
        inputs = {name: value.to(device) for name, value in inputs.items()}
        odds = inputs.pop("evidence_log_odds")
        self.cache = model(**inputs, use_cache=True, logits_to_keep=1).past_key_values
        index = torch.tensor([i for i, q in enumerate(queries) for _ in q.questions], device=device)
        self.cache.batch_select_indices(index)
        self.odds = odds[index]
        self.ids, self.mask = inputs["input_ids"][index], inputs["attention_mask"][index]
        self._add(tails)

    def _add(self, tokens: Sequence[Sequence[int]]) -> None:
        """Tokens behind each row; shorter ones are padded in front, so that all rows end together."""
        import torch

        added = padded_left(tokens, self.processor.tokenizer.pad_token_id or 0)
        self.ids = torch.cat((self.ids, added["input_ids"].to(self.ids.device)), dim=1)
        self.mask = torch.cat((self.mask, added["attention_mask"].to(self.ids.device)), dim=1)

    def state_log_odds(self) -> torch.Tensor:
        """The model's log-odds of each row, evidence included.

        The evidence is added here and not to the logits: in bfloat16 these have steps of an eighth, which would tie parts
        that the evidence tells apart. Where the language model has no share in the state, it is not asked: its questions
        are then read together with the first words of the answers, in one pass instead of two.
        """
        state, words = self.model.fusion.state_evidence, self.model.state_ids
        if state is not None and not state.gain.item() and not self.odds.isnan().any():
            return state.of_evidence(self.odds)
        done = self.cache.get_seq_length()
        logits = (
            self.model(
                input_ids=self.ids[:, done:],
                attention_mask=self.mask,
                position_ids=(self.mask.cumsum(dim=1) - 1).clamp(min=0)[:, done:],
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
            .logits[:, -1]
            .float()
        )
        if state is None:
            return logits[:, words[1]] - logits[:, words[0]]
        return state.log_odds(logits, self.odds, words)

    def finish(self, openings: Sequence[str], max_new_tokens: int, streamer: _Pieces | None = None) -> list[str]:
        """What the model says after the given first words of each row."""
        self._add([self.processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in openings])
        start = self.ids.shape[1]
        if streamer is not None or len(openings) <= FEW_ROWS:
            made: list[list[int]] = self._generate(max_new_tokens, streamer)[:, start:].tolist()
        else:
            made = self._by_turns(max_new_tokens)
        texts = self.processor.tokenizer.batch_decode(made, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _generate(self, max_new_tokens: int, streamer: _Pieces | None = None) -> torch.Tensor:
        """Ids of all rows with what the model adds to them."""
        made: torch.Tensor = self.model.generate(
            input_ids=self.ids,
            attention_mask=self.mask,
            past_key_values=self.cache,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            state_first=False,
            streamer=streamer,
        )
        return made

    def _by_turns(self, max_new_tokens: int) -> list[list[int]]:
        """New tokens of each row, a few at a time; rows that have ended leave the batch and cost nothing more."""
        import torch

        ends = self.model.generation_config.eos_token_id
        stops = {ends} if isinstance(ends, int) else set(ends or ())
        made: list[list[int]] = [[] for _ in self.ids]
        rows = list(range(len(made)))
        while rows and (left := max_new_tokens - max(map(len, made))) > 0:
            before = self.ids.shape[1]
            self.ids = self._generate(min(TURN, left))
            fresh = self.ids[:, before:].tolist()
            for row, own in zip(rows, fresh, strict=True):
                made[row] += own
            going = [place for place, own in enumerate(fresh) if not stops.intersection(own)]
            kept = torch.tensor(going, dtype=torch.long, device=self.ids.device)
            self.mask = torch.cat((self.mask, torch.ones_like(self.ids[:, before:])), dim=1)[kept]
            self.ids = self.ids[kept]
            self.cache.batch_select_indices(kept)
            rows = [rows[place] for place in going]
        return made


class _Pieces:
    """Passes on what is written, row by row, in whole words; what `generate` takes as a streamer."""

    def __init__(self, processor: SagePrompts, queries: Sequence[PartQuery], on_text: OnText) -> None:
        self._tokenizer = processor.tokenizer
        self._rows = [(i, j) for i, query in enumerate(queries) for j in range(len(query.questions))]
        self._ids: list[list[int]] = [[] for _ in self._rows]
        self._said = [0] * len(self._rows)
        self._on_text = on_text
        self._prompt = True

    def put(self, value: torch.Tensor) -> None:
        """The prompts first, then one token of each row at a time."""
        if self._prompt:
            self._prompt = False
            return
        for row, token in enumerate(value.flatten().tolist()):
            self._ids[row].append(token)
            self._tell(row, whole=False)

    def end(self) -> None:
        """Nothing follows: the rest is passed on."""
        for row in range(len(self._rows)):
            self._tell(row, whole=True)

    def _tell(self, row: int, whole: bool) -> None:
        text = self._tokenizer.decode(self._ids[row], skip_special_tokens=True).lstrip()
        end = len(text) if whole else text.rfind(" ") + 1
        if end > self._said[row]:
            self._on_text(*self._rows[row], text[self._said[row] : end])
            self._said[row] = end
