"""Scores: given once, kept, never made up; how they spread; and the commands around them."""

from __future__ import annotations

import json

import pytest

from sage_ad.alignment.data.judge_scores import equal_everywhere, means_of, report_markdown, score_lines, spread
from sage_ad.alignment.edpo.loading import with_state
from sage_ad.evaluation.inspection import MLEScore
from sage_ad.evaluation.ranked import AnswerScore, RankedAnswers, read_ranked, write_ranked


class LengthJudge:
    """Longer answers are better; answers that begin with "?" cannot be judged. Counts what it was asked."""

    name = "length"

    def __init__(self, broken: bool = False) -> None:
        self.asked, self.broken = 0, broken

    def judge(self, requests):
        self.asked += len(requests)
        scores = []
        for request in requests:
            level = min(5, len(request.answer))
            broken = self.broken and request.answer.startswith("?")
            scores.append(
                MLEScore(unscored="no reply")
                if broken
                else MLEScore(type=level, localisation=level, logic=level, mean=level)
            )
        return scores


def lines(count=40, answers=("xxxxx", "xxx", "xx", "x")):
    return [RankedAnswers(id=str(i), question=f"Is it {i}?", answers=list(answers)) for i in range(count)]


def test_scores_are_given_once_and_found_again(tmp_path):
    judge = LengthJudge()
    first, problems = score_lines(lines(), judge, out=tmp_path)
    assert (judge.asked, problems) == (160, [])
    again = LengthJudge()
    second, _ = score_lines(lines(), again, out=tmp_path)
    assert again.asked == 0
    assert second == first
    assert means_of(second[0]) == [5, 3, 2, 1]
    assert second[0].judge == "length"


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    class Dying(LengthJudge):
        def judge(self, requests):
            if self.asked:
                raise KeyboardInterrupt
            return super().judge(requests)

    with pytest.raises(KeyboardInterrupt):
        score_lines(lines(), Dying(), out=tmp_path)
    rest = LengthJudge()
    scored, _ = score_lines(lines(), rest, out=tmp_path)
    assert rest.asked == 160 - 64
    assert len(scored) == 40


def test_unscored_answers_have_no_score_and_are_asked_again(tmp_path):
    some = lines(2, ("xxxxx", "?x", "x"))
    scored, problems = score_lines(some, LengthJudge(broken=True), out=tmp_path)
    assert means_of(scored[0]) == [5, None, 1]
    assert len(problems) == 2
    assert "unscored: no reply" in problems[0]
    mended, problems = score_lines(some, LengthJudge(), out=tmp_path)
    assert problems == []
    assert means_of(mended[0]) == [5, 2, 1]


def scored(*means):
    answers = [f"answer {i}" for i in range(len(means))]
    return RankedAnswers(
        question="Is it?", answers=answers, scores=[None if m is None else AnswerScore(mean=m) for m in means]
    )


def test_spread_by_hand():
    found = spread([scored(5, 3, 2.5, 1), scored(4, 4, None, 5)])
    assert (found["lists"], found["answers"], found["unscored"], found["equal"]) == (2, 8, 1, 0)
    assert (found["neighbours"], found["tied"], found["disordered"]) == (4, 1, 0)
    assert found["places"][0] == {"place": 1, "n": 2, "mean": 4.5, "deviation": 0.5}
    near = found["entropy"]["surprisal"]
    assert near["closest"] == {"n": 2, "low": 0.5, "median": 0.75, "high": 1.0}
    assert near["chosen"] == {"2-3": 1, "2-4": 1}
    assert "surprisal, ends" in report_markdown(found, "local")


def test_equal_scores_everywhere_are_said():
    assert "entropy selects nothing" in equal_everywhere(spread([scored(3, 3), scored(2, 2, 2)]))
    assert equal_everywhere(spread([scored(3, 3), scored(2, 1)])) is None


def test_answers_as_sage_models_give_them():
    assert with_state("False. There is a crack.", "Is it free of defects?") == "anomalous. False. There is a crack."
    assert with_state("Yes, a crack.", "Is there a defect?") == "anomalous. True. a crack."
    assert with_state("A crack.", "Which defect is it?") == "A crack."


def run(*arguments):
    import sys

    from sage_ad.alignment import cli

    before = sys.argv
    sys.argv = ["sage-train", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        sys.argv = before
    return ended.value.code


def test_from_drawn_parts_to_an_aligned_model(tmp_path, capsys):
    """build-preferences, score, edpo and convert, as a user runs them, on a tiny model."""
    pytest.importorskip("trl")
    from tiny_models import tiny_language_model, tiny_tokenizer

    tiny_language_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    data = tmp_path / "data"
    assert run("build-preferences", "--drawn", 2, "--facts", 0, "--out", data, "--json") == 0
    assert json.loads(capsys.readouterr().out)["lists"] == 10
    assert run("score", data / "ranked.jsonl", "--out", data, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["unscored"] == 0
    assert printed["equal"] == 0
    edpo = ("edpo", "--data", data / "scored.jsonl", "--model", tmp_path / "model", "--out", tmp_path / "run", "--device",
            "cpu", "--steps", 2, "--save-steps", 1, "--lora-rank", 2, "--held-out", data / "scored.jsonl", "--json")  # fmt: skip
    assert run(*edpo) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["steps"] == 2
    assert 0 <= result["held_out"]["eval_rewards/accuracies"] <= 1
    assert (tmp_path / "run" / "checkpoint" / "model.safetensors").is_file()
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))
    assert run(*edpo) == 2
    assert "--resume" in capsys.readouterr().err
    assert run(*edpo, "--resume", "--eta", 2) == 2
    assert "eta" in capsys.readouterr().err
    assert run("convert", data / "scored.jsonl", "--to", "trl", "--pairs", "edpo", "--out", tmp_path / "trl.jsonl") == 0
    assert len((tmp_path / "trl.jsonl").read_text().splitlines()) >= 10


def test_equal_scores_end_the_command_with_the_reason(tmp_path, capsys, monkeypatch):
    class Blind(LengthJudge):
        def judge(self, requests):
            return [MLEScore(type=3, localisation=3, logic=3, mean=3) for _ in requests]

    monkeypatch.setattr("sage_ad.evaluation.judge.loading.load_judge", lambda name: Blind())
    write_ranked(tmp_path / "ranked.jsonl", lines(2))
    assert run("score", tmp_path / "ranked.jsonl", "--out", tmp_path / "out") == 1
    assert "entropy selects nothing" in capsys.readouterr().out
    assert means_of(read_ranked(tmp_path / "out" / "scored.jsonl")[0]) == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("build-preferences", "--out", "x"), "--data"),
        (("build-preferences", "--drawn", 1, "--writer", "nobody", "--out", "x"), "nobody"),
        (("build-preferences", "--drawn", 1, "--verdicts", "wrong", "--out", "x"), "mixed or right"),
        (("convert", "nowhere.jsonl", "--out", "x"), "nowhere.jsonl"),
        (("edpo", "--data", "nowhere.jsonl", "--out", "x"), "nowhere.jsonl"),
    ],
)
def test_bad_input_is_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert len(shown.err.strip().splitlines()) == 1
