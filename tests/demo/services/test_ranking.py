"""What the expert ranks is a line that `sage-eval judge` and `sage-train` take."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from sage_ad.demo.services.pictures import Shown
from sage_ad.demo.services.ranking import RankingStore, gold_of, ranked_line
from sage_ad.demo.services.run_store import Run, RunStore
from sage_ad.evaluation.inspection import InspectionTrace
from sage_ad.evaluation.ranked import read_ranked
from sage_ad.vlm.errors import InputError

ME = "a" * 24


@pytest.fixture
def run(tmp_path: Path, trace: InspectionTrace, pictures: Shown, originals: list[Path]) -> Run:
    return RunStore(tmp_path / "runs").add(ME, trace, pictures, {}, originals)


@pytest.fixture
def rankings(tmp_path: Path) -> RankingStore:
    return RankingStore(tmp_path / "rankings")


def test_a_saved_order_is_read_by_the_readers_of_ranked_answers(
    rankings: RankingStore, run: Run, tmp_path: Path
) -> None:
    answer = run.trace.answers[0]
    gold = gold_of(answer, "anomalous", "scratch", "upper left", "No, there is a scratch.")
    line = ranked_line(run, answer, ["best", "good", "bad"], gold, *rankings.pictures(ME, run))
    assert rankings.save(ME, line) == 1
    (read,) = read_ranked(rankings.folder(ME) / "ranked.jsonl")
    assert read == line
    assert read.answers == ["best", "good", "bad"]
    assert read.rank_source == "expert"
    assert read.group == run.id
    assert read.pair_type == "standard comparison"
    assert read.gold is not None
    assert (read.gold.verdict, read.gold.anomalous, read.gold.defect) == (False, True, "scratch")
    assert read.image is not None
    assert (rankings.folder(ME) / read.image).is_file(), "pictures are found from where the lines lie"


def test_ranking_a_question_again_replaces_its_line(rankings: RankingStore, run: Run) -> None:
    for order in (["a", "b"], ["b", "a"]):
        assert rankings.save(ME, ranked_line(run, run.trace.answers[0], order, None, None, None)) == 1
    assert rankings.save(ME, ranked_line(run, run.trace.answers[1], ["c", "d"], None, None, None)) == 2
    assert [line.answers for line in rankings.lines(ME)] == [["b", "a"], ["c", "d"]]


def test_the_download_holds_lines_and_pictures(rankings: RankingStore, run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Nothing is ranked"):
        rankings.bundle(ME, tmp_path / "x.zip")
    rankings.save(ME, ranked_line(run, run.trace.answers[0], ["a", "b"], None, *rankings.pictures(ME, run)))
    with zipfile.ZipFile(rankings.bundle(ME, tmp_path / "x.zip")) as bundle:
        bundle.extractall(tmp_path / "out")
    (line,) = read_ranked(tmp_path / "out" / "ranked.jsonl")
    assert line.image is not None
    assert line.reference is not None
    assert (tmp_path / "out" / line.image).is_file()
    assert (tmp_path / "out" / line.reference).is_file()


@pytest.mark.parametrize("answers", [["only one"], ["same", "same"], ["a", " "]])
def test_what_is_no_ranking_is_refused(run: Run, answers: list[str]) -> None:
    with pytest.raises(InputError):
        ranked_line(run, run.trace.answers[0], answers, None, None, None)


def test_nothing_is_made_up_about_what_is_right(run: Run) -> None:
    answer = run.trace.answers[0]
    assert gold_of(answer, "", "", "", "") is None
    normal = gold_of(answer, "normal", "scratch", "centre", "")
    assert normal is not None
    assert (normal.verdict, normal.anomalous, normal.defect, normal.place) == (True, False, None, None)
    only_text = gold_of(answer, "", "", "", "A better answer.")
    assert only_text is not None
    assert (only_text.verdict, only_text.anomalous) == (None, None)
