"""The score model: words met by words, answers held against the gold answer, and who wins where rules and model differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sage_ad.evaluation.inspection import Gold, Judge, JudgeRequest, MLEScore
from sage_ad.evaluation.judge.features import Features, content_features, reference_of, verdict_features
from sage_ad.evaluation.judge.local import LocalJudge, answer_features, score_of
from sage_ad.evaluation.judge.score_model import Comparison, default_score_model
from sage_ad.evaluation.judge.score_resolution import has_right_verdict, resolve_faults
from sage_ad.evaluation.ranked import read_ranked
from sage_ad.evaluation.rubric import DIMENSIONS
from sage_ad.evaluation.text.token_similarity import NOTHING, TokenSimilarity

QUESTION = "Is this kettle fit for sale?"
DENTED = Gold(
    verdict=False,
    anomalous=True,
    defect="dent",
    place="lower left",
    reference_answer="No. There is a dent at the lower left of the body.",
)
SOUND = Gold(
    verdict=True,
    anomalous=False,
    reference_answer="Yes. Body and lid are whole; the dark mark is a reflection of the window.",
)


def found_in(answer: str, gold: Gold = DENTED, question: str = QUESTION) -> tuple[Features, TokenSimilarity]:
    cases, similarity, tokens = LocalJudge().prepare([JudgeRequest(question, answer, gold=gold)])
    return answer_features(cases[0], similarity)[1], tokens


def judged(judge: Judge, answers: list[str], gold: Gold = DENTED) -> list[MLEScore]:
    return judge.judge([JudgeRequest(QUESTION, answer, gold=gold) for answer in answers])


class TestTokenSimilarity:
    def test_a_word_is_met_by_a_word_of_like_meaning(self) -> None:
        tokens = TokenSimilarity()
        near = tokens.met("a dent", "the wall has been knocked in and is dented")
        far = tokens.met("a dent", "the timetable of the night train")
        assert near.best > far.best + 0.2
        assert tokens.met("a dent", "a dent").worst == pytest.approx(1.0, abs=1e-3)

    @pytest.mark.parametrize(("one", "other"), [(None, "x"), ("x", None), ("", "a dent"), ("!?", "a dent")])
    def test_nothing_to_compare_is_neither_like_nor_unlike(self, one: str | None, other: str | None) -> None:
        assert TokenSimilarity().met(one, other) == NOTHING


class TestFeatures:
    def test_the_weights_name_the_features_that_there_are(self) -> None:
        model = default_score_model()
        for gold, state in ((DENTED, "anomalous"), (SOUND, "normal")):
            found, tokens = found_in("No. A dent, lower left.", gold)
            assert set(model.verdict.weights) == set(verdict_features(found, tokens))
            assert set(model.content[state].weights) == set(content_features(found, tokens))

    def test_a_longer_answer_gains_nothing_by_its_length_alone(self) -> None:
        names = set(default_score_model().verdict.weights) | set(default_score_model().content["normal"].weights)
        assert not {name for name in names if "length" in name or "count" in name}

    def test_only_a_gold_answer_with_a_reason_can_be_compared_with(self) -> None:
        found, _ = found_in("No. A dent, lower left.")
        assert reference_of(found.request, found.gold) == DENTED.reference_answer
        for reference in (None, "", "No."):
            gold = DENTED.model_copy(update={"reference_answer": reference})
            assert reference_of(replace(found.request, gold=gold), found.gold) is None
        assert reference_of(replace(found.request, gold=None), found.gold) is None


class TestOrder:
    def test_a_defective_part(self, local_judge: Judge) -> None:
        full, vague, other, wrong = judged(
            local_judge,
            [
                "Take it back. Low down on the left the wall has been knocked in.",
                "Take it back, there is something about it.",
                "Take it back. The cord at the top right is frayed.",
                "Sell it. Polished all over, lid tight, and I have seldom seen a kettle made with so much care.",
            ],
        )
        means = [one.mean or 0 for one in (full, vague, other, wrong)]
        assert means == sorted(means, reverse=True)
        assert len(set(means)) == 4

    def test_a_normal_part(self, local_judge: Judge) -> None:
        full, vague, wrong = judged(
            local_judge,
            [
                "Sell it. Lid and body are in one piece, and what looks dark is only the window, mirrored.",
                "Sell it, I like it.",
                "Keep it back. The dark mark is where the enamel burnt.",
            ],
            SOUND,
        )
        assert (full.mean or 0) > (vague.mean or 0) > (wrong.mean or 5)

    def test_the_gold_answer_passes_and_its_negation_does_not(self, local_judge: Judge, repository: Path) -> None:
        lines = read_ranked(repository / "tests/data/ranked_third.jsonl")[:24]
        requests = []
        for line in lines:
            assert line.gold is not None
            reference = line.gold.reference_answer or ""
            opening = reference[:3].strip(" ,.;:")
            rest = reference[len(opening) :]
            turned = {"Yes": "No", "No": "Yes"}[opening] + rest
            requests += [JudgeRequest(line.question, text, gold=line.gold) for text in (reference, turned)]
        means = [score.mean or 0 for score in local_judge.judge(requests)]
        assert all(copy > turned for copy, turned in zip(means[::2], means[1::2], strict=True))
        assert sum(turned > 2.5 for turned in means[1::2]) <= 1

    def test_every_point_off_has_its_reason(self, local_judge: Judge, repository: Path) -> None:
        lines = read_ranked(repository / "tests/data/ranked_training_b.jsonl")[:12]
        requests = [JudgeRequest(line.question, text, gold=line.gold) for line in lines for text in line.answers]
        for score in local_judge.judge(requests):
            for name in DIMENSIONS:
                reported = [int(text.split()[1][0]) for text in score.deductions if text.startswith(f"{name} ")]
                level = getattr(score, name)
                assert level is None or min([5, *reported]) == level


class TestScoreResolution:
    def test_the_rules_keep_their_words_where_both_find_the_same(self) -> None:
        found, _ = found_in("No. A crack at the upper right.")
        assert set(found.faults) <= set(resolve_faults(found, Comparison(3.0, 0.1, 0.2, 0.7)))

    def test_the_score_model_wins_where_they_differ(self) -> None:
        found, _ = found_in("No. A crack at the upper right.")
        assert {"wrong-defect", "wrong-place"} <= {fault.name for fault in found.faults}
        assert resolve_faults(found, Comparison(3.0, 1.0, 0.0, 0.0)) == []
        names = {fault.name for fault in resolve_faults(found, Comparison(3.0, 0.3, 0.6, 0.1))}
        assert not names & {"wrong-defect", "wrong-place", "false-reason", "false-place"}
        assert {"unplaced", "loose-reason"} <= names

    def test_the_less_is_told_the_lower_it_stands(self) -> None:
        for answer, gold in (("No. It is dented, lower left.", DENTED), ("Yes, it is whole.", SOUND)):
            found, _ = found_in(answer, gold)
            means = [
                score_of(resolve_faults(found, Comparison(3.0, full, 0.0, 1 - full)), found.gold).mean or 0
                for full in (1.0, 0.9, 0.7, 0.5, 0.3, 0.05)
            ]
            assert means == sorted(means, reverse=True)
            assert means[0] > means[2] > means[4]

    def test_to_deny_the_defect_is_never_the_right_verdict(self) -> None:
        found, _ = found_in("It is not true that there is a dent at the lower left.")
        assert not has_right_verdict(found, Comparison(9.0, 1.0, 0.0, 0.0))

    def test_a_verdict_that_nobody_hears_must_be_plain(self) -> None:
        found, _ = found_in("asdf qwer zxcv")
        verdict = replace(found.fused.verdict, state=None)
        found = replace(found, fused=replace(found.fused, verdict=verdict))
        assert not has_right_verdict(found, Comparison(0.5, 1.0, 0.0, 0.0))
        assert has_right_verdict(found, Comparison(3.0, 1.0, 0.0, 0.0))


def test_the_weights_are_small_and_readable(repository: Path) -> None:
    file = repository / "evaluation" / "judge" / "score_model.yaml"
    assert file.stat().st_size < 40_000
    weights = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert set(weights["content"]) == {"anomalous", "normal"}
    assert all(len(row) == 3 for row in weights["content"]["normal"]["weights"].values())
