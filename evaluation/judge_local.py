"""The local judge: deterministic, without a network, and with a reason in words for every point that it takes off.

It reads the answer (`evaluation.reading`), finds the truth (`evaluation.truth`: gold, else mask, else evidence), and
collects faults from four readers: verdict, defect, place and logic. The rubric turns faults into levels.
"""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.defects import is_named, naming
from evaluation.inspection import Family, MLEScore
from evaluation.judging import LOCAL_JUDGE, JudgeRequest
from evaluation.logic import consequence_faults, doubt_faults, reason_faults
from evaluation.placing import cells_of_words, distance, place_words, places_in
from evaluation.questions import family_of
from evaluation.reading import Reading, read
from evaluation.rubric import DIMENSIONS, Fault, level_and_reasons
from evaluation.truth import Truth, truth_of
from evaluation.verdict import STRONG, SpokenVerdict, spoken_verdict


class LocalJudge:
    """Judges answers by the rubric with linguistic rules, a lexicon and sentence embeddings."""

    name = LOCAL_JUDGE

    def judge(self, requests: Sequence[JudgeRequest]) -> list[MLEScore]:
        """Scores answers; an answer about which nothing is known to be right comes back unscored, with the reason."""
        return [self._score(request) for request in requests]

    def _score(self, request: JudgeRequest) -> MLEScore:
        truth = truth_of(request)
        if truth.state is None:
            return MLEScore(unscored="Neither a gold answer nor a mask nor a measured verdict says what is right.")
        reading = read(request.answer)
        verdict = spoken_verdict(reading, truth.yes_means)
        family = request.family or family_of(request.question)
        faults = find_faults(reading, verdict, truth, family)
        return _as_score(faults, placed=truth.state == "normal" or bool(truth.cells) or bool(truth.place))


def _as_score(faults: list[Fault], placed: bool) -> MLEScore:
    levels: dict[str, int | None] = {}
    reasons: list[str] = []
    for dimension in DIMENSIONS:
        if dimension == "localisation" and not placed:
            levels[dimension] = None
            continue
        level, why = level_and_reasons(dimension, faults)
        levels[dimension] = level
        reasons += why
    known = [level for level in levels.values() if level is not None]
    return MLEScore(mean=round(sum(known) / len(known), 4), deductions=reasons, **levels)


def find_faults(reading: Reading, verdict: SpokenVerdict, truth: Truth, family: Family) -> list[Fault]:
    """All faults of one answer, in no particular order."""
    if verdict.state is None:
        why = "no yes or no and nothing about the part's state can be read in it"
        if reading.undecided:
            return [Fault.of("no-verdict", why="it leaves the question open"), Fault.of("no-verdict-logic"), Fault.of("no-place", truth=place_words(truth.cells))]
        return [Fault.of("no-answer", why=why), Fault.of("no-answer-place"), Fault.of("no-answer-logic", why=why)]
    faults = [*reason_faults(reading, verdict), *doubt_faults(verdict), *consequence_faults(reading, verdict.state, family)]
    if verdict.state != truth.state:
        words = verdict.good if verdict.state == "normal" else verdict.bad
        return [*faults, Fault.of("wrong-state", said=verdict.state, words=words or reading.polar_words, truth=str(truth.state)), *_wrong_state_place(verdict, truth), Fault.of("argues-wrong")]
    if verdict.split:
        faults.append(Fault.of("split-verdict", said=reading.polar_words, words=verdict.good if verdict.by_words == "normal" else verdict.bad))
    elif min(verdict.good_weight, verdict.bad_weight) >= STRONG:
        faults.append(Fault.of("split-state", good=verdict.good, bad=verdict.bad))
    if truth.state == "normal":
        return faults + _faults_on_normal(reading)
    return faults + _defect_faults(reading, truth) + _place_faults(reading, truth)


def _wrong_state_place(verdict: SpokenVerdict, truth: Truth) -> list[Fault]:
    if truth.state == "anomalous":
        return [Fault.of("denied-place", truth=place_words(truth.cells))]
    return [Fault.of("invented-place", named="a defect")]


def _faults_on_normal(reading: Reading) -> list[Fault]:
    reported = reading.asserted("bad", "defect")
    if not reported:
        return []
    return [Fault.of("invented-defect", named=reported[0].term), Fault.of("invented-anywhere"), Fault.of("tolerated-defect", named=reported[0].term)]


def _defect_faults(reading: Reading, truth: Truth) -> list[Fault]:
    if not is_named(truth.defect):
        return [] if reading.asserted("bad", "defect") else [Fault.of("unnamed-unknown")]
    found = naming(reading, truth.defect or "")
    right = truth.defect or ""
    if found.match == "same":
        return [Fault.of("extra-defect", named=found.others[0])] if found.others else []
    if found.match == "near":
        return [Fault.of("near-defect", named=found.named, truth=right)]
    if found.match == "other":
        return [Fault.of("wrong-defect", named=found.named, truth=right), Fault.of("false-reason", named=found.named)]
    return [Fault.of("unnamed-defect", truth=right)]


def _place_faults(reading: Reading, truth: Truth) -> list[Fault]:
    if not truth.cells:
        return []
    right = place_words(truth.cells)
    clear = {claim.clause for claim in reading.claims if claim.stance == "good" or claim.scope != "part"}
    bad = {claim.clause for claim in reading.asserted("bad")}
    pointed = [place for number, clause in enumerate(reading.clauses) if number not in clear - bad for place in places_in(clause.text)]
    if not pointed:
        return [Fault.of("no-place", truth=right)]
    hits = [place for place in pointed if place.cells & truth.cells]
    misses = [place for place in pointed if not place.cells & truth.cells]
    if hits and misses:
        return [Fault.of("mixed-place", named=misses[0].words, truth=right)]
    if hits:
        coarse = min(len(place.cells) for place in hits) > max(1, len(truth.cells))
        same = cells_of_words(truth.place) == hits[0].cells
        return [Fault.of("coarse-place", named=hits[0].words, truth=right)] if coarse and not same else []
    nearest = min(misses, key=lambda place: distance(place.cells, truth.cells))
    if distance(nearest.cells, truth.cells) <= 1:
        return [Fault.of("beside-place", named=nearest.words, truth=right), Fault.of("false-place", named=nearest.words)]
    return [Fault.of("wrong-place", named=nearest.words, truth=right), Fault.of("false-place", named=nearest.words)]
