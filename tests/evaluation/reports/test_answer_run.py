"""`sage-eval answer`: inspectors that are right, wrong, silent or broken get the figures that they deserve."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from plates import PlainExtractor

import sage_ad.evaluation.reports.answer_run as answering
from sage_ad.evaluation.cli import app
from sage_ad.evaluation.datasets import open_dataset
from sage_ad.evaluation.inspection import (
    InspectionRequest,
    InspectionTrace,
    Inspector,
    JudgeRequest,
    MLEScore,
    TraceAnswer,
)
from sage_ad.evaluation.judge.local import LocalJudge
from sage_ad.evaluation.questions import GoldQuestion, build_questions, family_of, polarity_of
from sage_ad.evaluation.reports.answer_figures import report_markdown
from sage_ad.evaluation.reports.answer_run import AnswerSettings, asked, measure, standard_subset, tasks_of
from sage_ad.evaluation.template_inspector import EvidenceTemplateInspector
from sage_ad.vlm.commandline import run_app
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.places import PLACES

FIGURES = ("accuracy", "acc_g", "sbert", "verdict_auroc", "consistency", "unscored")


class Oracle:
    """Knows the label from the file's path; `lies` turns its verdicts round, `mute` leaves them to the text."""

    def __init__(self, lies: bool = False, mute: bool = False, model: str = "oracle", **settings: Any) -> None:
        self.lies, self.mute, self.model, self.settings = lies, mute, model, settings
        self.seen: list[InspectionRequest] = []

    def inspect(self, request: InspectionRequest) -> InspectionTrace:
        self.seen.append(request)
        anomalous = ("gash" in str(request.image)) != self.lies
        answers = []
        for text in request.questions:
            expected = (polarity_of(text) == "anomalous") == anomalous
            said = "There is a gash in the upper left area." if anomalous else "It is free of defects."
            answers.append(
                TraceAnswer(
                    question=text,
                    family=family_of(text),
                    verdict=None if self.mute else expected,
                    text=f"{'Yes' if expected else 'No'}. {said}",
                )
            )
        return InspectionTrace(
            image=str(request.image),
            anomaly_score=0.9 if anomalous else 0.1,
            threshold=0.5,
            threshold_from="references",
            verdict="anomalous" if anomalous else "normal",
            confidence=0.9,
            answers=answers,
            model=self.model,
            seconds=0.1,
        )

    def inspect_many(self, requests: Iterable[InspectionRequest]) -> Iterator[InspectionTrace]:
        for request in requests:
            yield self.inspect(request)


class QuickJudge:
    """Gives 5 to a right verdict and 1 to a wrong one; the real judge is used where its levels are looked at."""

    name = "quick"

    def judge(self, requests: Sequence[JudgeRequest]) -> list[MLEScore]:
        levels = [5 if r.gold and r.answer.startswith(("Yes", "True")) == r.gold.verdict else 1 for r in requests]
        return [MLEScore(type=level, localisation=level, logic=level, mean=level) for level in levels]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage_ad.evaluation.judge.loading.load_judge", lambda name: QuickJudge())


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts an inspector in the place of the registered one; the baseline sees with the stand-in."""
    extractor = PlainExtractor()
    original = EvidenceTemplateInspector.__init__

    def with_stand_in(self: EvidenceTemplateInspector, **options: Any) -> None:
        original(self, **{**options, "extractor": extractor})

    monkeypatch.setattr(EvidenceTemplateInspector, "__init__", with_stand_in)

    def chosen(inspector: Inspector) -> Inspector:
        monkeypatch.setattr(answering, "make_inspector", lambda settings: inspector)
        return inspector

    return chosen


@pytest.mark.usefixtures("quick")
def test_json_has_the_promised_shape(plates: Path, use: Any, tmp_path: Path) -> None:
    use(Oracle())
    result = json.loads(json.dumps(measure(open_dataset(plates), AnswerSettings(), out=tmp_path), allow_nan=False))
    assert (result["model"], result["judge"], result["shots"]) == ("oracle", "quick", 1)
    assert result["n"] == 13
    for name in FIGURES:
        assert {"value", "low", "high"} <= set(result[name]), name
    assert set(result["by_family"]) == {"standard comparison", "defect identification", "defect diagnosis"}
    assert set(result["mle"]) == {"type", "localisation", "logic", "mean"}
    assert result["accuracy"]["value"] == result["acc_g"]["value"] == result["consistency"]["value"] == 1.0
    assert result["verdict_auroc"]["value"] == 1.0
    assert result["mle"]["mean"]["value"] > 4
    assert result["place"]["value"] == 1.0
    assert result["place_found"]["value"] == 1.0
    assert result["unscored"]["value"] == 0
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 65
    assert "| accuracy " in report_markdown(result)


def test_a_liar_gets_nothing(plates: Path, use: Any) -> None:
    use(Oracle())
    truthful = measure(open_dataset(plates, categories=["plate"]), AnswerSettings(per_class=1))
    assert truthful["mle"]["mean"]["value"] > 4
    use(Oracle(lies=True))
    result = measure(open_dataset(plates, categories=["plate"]), AnswerSettings())
    assert result["judge"] == "local"
    assert result["accuracy"]["value"] == result["acc_g"]["value"] == 0.0
    assert result["consistency"]["value"] == 1.0  # it lies without contradicting itself
    assert result["verdict_auroc"]["value"] == 0.0
    assert result["mle"]["mean"]["value"] < 2


@pytest.mark.usefixtures("quick")
def test_constants_get_one_half_whatever_the_balance(plates: Path, use: Any) -> None:
    for number in (1, 2):
        (plates / "sheet" / "test" / "good" / f"{number}.png").unlink()
    use(Oracle())
    result = measure(open_dataset(plates), AnswerSettings())
    for name in ("constant anomalous", "constant normal"):
        baseline = result["baselines"][name]
        assert baseline["accuracy"]["value"] == 0.5
        assert baseline["acc_g"]["value"] == 0.5
        assert all(figure["value"] == 0.5 for figure in baseline["by_family"].values())
    assert result["baselines"]["evidence-template"]["accuracy"]["value"] == 1.0  # the plates are easy


@pytest.mark.usefixtures("quick")
def test_categories_without_good_parts_have_no_accuracy(plates: Path, use: Any) -> None:
    use(Oracle())
    result = measure(open_dataset(plates, categories=["washer"]), AnswerSettings())
    assert result["accuracy"]["value"] is None
    assert result["categories"]["washer"]["naming"]["n"] > 0
    assert any("1 images have no reference" in note for note in result["notes"])


@pytest.mark.usefixtures("quick")
def test_a_verdict_left_open_is_read_from_the_text(plates: Path, use: Any) -> None:
    use(Oracle(mute=True))
    result = measure(open_dataset(plates, categories=["plate"]), AnswerSettings())
    assert result["accuracy"]["value"] > 0.9
    assert result["undecided"] == 0


@pytest.mark.usefixtures("quick")
def test_requests_carry_own_references_products_and_questions(plates: Path, use: Any) -> None:
    oracle = use(Oracle())
    measure(open_dataset(plates, categories=["plate"]), AnswerSettings(shots=1))
    assert all(len(request.references) == 1 and len(request.questions) == 5 for request in oracle.seen)
    assert {request.product for request in oracle.seen} == {"plate"}
    assert len({request.references[0] for request in oracle.seen}) == 1
    oracle.seen.clear()
    measure(open_dataset(plates, categories=["plate"]), AnswerSettings(shots=0))
    assert all(request.references == [] for request in oracle.seen)


@pytest.mark.usefixtures("quick")
def test_kept_images_are_not_inspected_again(plates: Path, use: Any, tmp_path: Path) -> None:
    class Stops(Oracle):
        def inspect(self, request: InspectionRequest) -> InspectionTrace:
            if len(self.seen) == 4:
                raise KeyboardInterrupt
            return super().inspect(request)

    stops = use(Stops())
    with pytest.raises(KeyboardInterrupt):
        measure(open_dataset(plates, categories=["plate"]), AnswerSettings(), out=tmp_path)
    resumed = use(Oracle())
    result = measure(open_dataset(plates, categories=["plate"]), AnswerSettings(), out=tmp_path)
    assert len(stops.seen) == 4
    assert len(resumed.seen) == 6 - 4
    again = use(Oracle())
    assert measure(open_dataset(plates, categories=["plate"]), AnswerSettings(), out=tmp_path) == result
    assert again.seen == []
    fresh = measure(open_dataset(plates, categories=["plate"]), AnswerSettings())
    for report in (fresh, result):
        report["baselines"]["evidence-template"].pop("seconds_per_image")  # a measured time never repeats
    assert fresh == result


@pytest.mark.usefixtures("quick")
def test_failed_inspections_are_named_and_count_for_nothing(plates: Path, use: Any) -> None:
    class Fails(Oracle):
        def inspect(self, request: InspectionRequest) -> InspectionTrace:
            if request.image.name == "1.png":
                raise ValueError("lens cap on")
            trace = super().inspect(request)
            return trace.model_copy(update={"answers": trace.answers[:3]}) if request.image.name == "2.png" else trace

    use(Fails())
    result = measure(open_dataset(plates, categories=["plate"]), AnswerSettings())
    assert result["n"] == 2
    assert result["accuracy"]["value"] == 1.0
    assert sum("lens cap on" in problem for problem in result["problems"]) == 2
    assert sum("3 answers came back" in problem for problem in result["problems"]) == 2


def test_a_judge_that_fails_leaves_answers_unscored(plates: Path, use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        name = "silent"

        def judge(self, requests: Any) -> list[MLEScore]:
            return [MLEScore(unscored="the server did not answer") for _ in requests]

    monkeypatch.setattr("sage_ad.evaluation.judge.loading.load_judge", lambda name: Silent())
    use(Oracle())
    result = measure(open_dataset(plates, categories=["plate"]), AnswerSettings())
    assert result["unscored"]["value"] == 30
    assert result["mle"]["mean"]["value"] is None
    assert result["accuracy"]["value"] == 1.0


def test_our_reference_answers_please_our_judge() -> None:
    """Wordings and judge are made apart: what the one calls a right answer must be one for the other."""
    requests = []
    for number, defect in enumerate(["crack", "scratch on the head", "open circuit", "stain or rust", None] * 4):
        questions = build_questions(
            product=("screw", "steel sheet")[number % 2],
            anomalous=number % 4 < 2,
            defect=defect,
            place=PLACES[number % 9],
            group=str(number),
        )
        requests += [JudgeRequest(q.text, q.reference_answer, q.family, q.gold()) for q in questions]
    for request, score in zip(requests, LocalJudge().judge(requests), strict=True):
        assert score.mean is not None
        # Where the label does not say which defect it is, neither does the answer, which costs it levels.
        assert score.mean >= 4, (request.question, request.answer, score.deductions)


# --- which images ---------------------------------------------------------------------------------------------------


def test_the_subset_is_balanced_and_seeded(plates: Path) -> None:
    dataset = open_dataset(plates, categories=["plate", "sheet"])
    two = standard_subset(dataset, AnswerSettings(per_class=2))
    assert [sample.id for sample in two] == [s.id for s in standard_subset(dataset, AnswerSettings(per_class=2))]
    assert [s.id for s in two] != [s.id for s in standard_subset(dataset, AnswerSettings(per_class=2, seed=5))]
    for category in ("plate", "sheet"):
        states = [sample.anomalous for sample in two if sample.category == category]
        assert sorted(states) == [False, False, True, True]
    limited = standard_subset(dataset, AnswerSettings(limit=4))
    assert sorted((s.category, s.anomalous) for s in limited) == [
        ("plate", False),
        ("plate", True),
        ("sheet", False),
        ("sheet", True),
    ]
    assert len(standard_subset(dataset, AnswerSettings(per_class=0))) == 12


def test_an_unreadable_mask_costs_only_the_place(plates: Path) -> None:
    (plates / "plate" / "ground_truth" / "gash" / "0_mask.png").write_text("no mask")
    dataset = open_dataset(plates, categories=["plate"])
    tasks = {task.sample.image.name: task for task in tasks_of(dataset, AnswerSettings()) if task.sample.anomalous}
    assert tasks["0.png"].questions[0].place is None
    assert tasks["1.png"].questions[0].place == "upper left"
    assert any("0_mask.png" in str(problem) for problem in dataset.problems)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"shots": 2}, "0 or 1"), ({"limit": 0}, "at least 1"), ({"per_class": -1}, "negative")],
)
def test_bad_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AnswerSettings(**options)


def test_an_inspector_that_refuses_a_setting_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "load_inspector", lambda name, **options: (lambda device="auto": None)(**options))
    with pytest.raises(InputError, match="does not take the settings model"):
        answering.make_inspector(AnswerSettings(options={"model": "x"}))


# --- sets with questions of their own -------------------------------------------------------------------------------


@pytest.fixture
def mmad(plates: Path) -> Path:
    yes_no = {"Question": "Is there any defect?", "Options": {"A": "Yes.", "B": "No."}}
    kind = {"Question": "What is wrong?", "Options": {"A": "A gash.", "B": "A missing hole."}, "Answer": "A"}
    records = {}
    for number in range(3):
        for group, letter in (("good", "B"), ("gash", "A")):
            questions = [yes_no | {"Answer": letter, "type": "Anomaly Detection"}]
            if group == "gash":
                questions.append(kind | {"type": "Defect Classification"})
            records[f"plate/test/{group}/{number}.png"] = {
                "similar_templates": ["plate/train/good/0.png"],
                "conversation": questions,
            }
    path = plates / "mmad.json"
    path.write_text(json.dumps(records))
    return path


@pytest.mark.usefixtures("quick")
def test_multiple_choice_is_accuracy_a_subtask_then_their_mean(mmad: Path, use: Any) -> None:
    oracle = use(Oracle())
    result = measure(open_dataset(mmad), AnswerSettings())
    assert "A: Yes." in oracle.seen[0].questions[0]
    assert oracle.seen[0].references == [mmad.parent / "plate" / "train" / "good" / "0.png"]
    assert {name: figure["value"] for name, figure in result["by_subtask"].items()} == {
        "Anomaly Detection": 1.0,
        "Defect Classification": 1.0,
    }
    assert result["accuracy"]["value"] == 1.0
    use(Oracle(lies=True))
    worse = measure(open_dataset(mmad), AnswerSettings())
    assert worse["by_subtask"]["Anomaly Detection"]["value"] == 0.0
    assert worse["accuracy"]["value"] < 0.6


@pytest.mark.usefixtures("quick")
def test_manta_questions_are_asked_as_they_are(plates: Path, use: Any) -> None:
    records = [
        {
            "domain": "plate",
            "test_image": f"plate/test/{group}/{number}.png",
            "pair_type": "defect identification",
            "question_answer": [
                {"question_en": "Is there a flaw?", "answer": group == "gash", "conclusion_en": "See the upper left."},
                {"question_en": "Is the plate free of flaws?", "answer": group == "good"},
            ],
        }
        for group in ("good", "gash")
        for number in range(3)
    ]
    (plates / "qa.jsonl").write_text("\n".join(map(json.dumps, records)))
    use(Oracle())
    result = measure(open_dataset(plates / "qa.jsonl"), AnswerSettings(shots=0))
    assert result["accuracy"]["value"] == 1.0
    assert result["by_family"]["standard comparison"]["value"] is None


def test_a_multiple_choice_question_brings_its_choices() -> None:
    question = GoldQuestion("What is it?", "defect identification", None, options=(("A", "dent"), ("B", "hole")))
    assert asked(question) == "What is it?\nA: dent\nB: hole\nAnswer with the letter of the right choice."


# --- command line and the real template -----------------------------------------------------------------------------


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        run_app(lambda: app(list(arguments), standalone_mode=False))
    return int(end.value.code or 0)


@pytest.mark.usefixtures("quick")
def test_command_line(plates: Path, use: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    use(Oracle())
    out = tmp_path / "run"
    assert run("answer", str(plates), "--limit", "4", "--json", "--out", str(out)) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "results.json").read_text())
    assert printed["n"] == 4
    assert (out / "report.md").read_text().startswith("# Answers on plates")


def test_command_line_refuses_in_one_line(plates: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["answer", str(plates), "--inspector", "nobody"],
        ["answer", str(plates), "--judge", "nobody"],
        ["answer", str(plates), "--shots", "4"],
        ["answer", str(plates), "--limit", "0"],
    ):
        assert run(*arguments) == 2, arguments
        error = capsys.readouterr().err
        assert error.startswith("Error: ")
        assert error.count("\n") == 1


def test_the_template_inspector_sees_and_says(plates: Path) -> None:
    inspector = EvidenceTemplateInspector()
    request = InspectionRequest(
        image=plates / "plate" / "test" / "gash" / "0.png",
        references=[plates / "plate" / "train" / "good" / "0.png"],
        questions=["Is the plate free of defects?", "Is it defective?", "Which defect is it?"],
        product="plate",
    )
    trace = inspector.inspect(request)
    assert trace.verdict == "anomalous"
    assert [answer.verdict for answer in trace.answers] == [False, True, None]
    assert "upper left" in trace.answers[0].text
    assert InspectionTrace.from_json(trace.to_json()) == trace
    (good,) = inspector.inspect_many([request.model_copy(update={"image": request.references[0]})])
    assert good.verdict == "normal"
    assert good.answers[0].text == "True. The plate is free of visible defects; its whole surface is intact."
    with pytest.raises(InputError):
        inspector.inspect(InspectionRequest(image=plates / "nowhere.png"))
