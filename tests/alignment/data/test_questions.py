"""Stage 1 examples: five questions a part, right in every label, and without a hint of the label in what is given."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from sage_ad.alignment.data.labelled import LabelledPart, Picture, drawn_parts, pasted_parts, real_parts
from sage_ad.alignment.data.questions import (
    FactPool,
    Stage1Settings,
    as_measured,
    inspection_examples,
    stage1_examples,
)
from sage_ad.evaluation.inspection import FAMILIES
from sage_ad.evaluation.questions import read_question, wordings
from sage_ad.knowledge.looks.index import ASSERTED
from sage_ad.knowledge.store.fact_store import FactStore
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.places import PLACES
from sage_ad.vlm.sage.visual_inputs import VisualInputs

SIZE = 96


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with FactStore.open(tmp_path_factory.mktemp("home"), cache=tmp_path_factory.mktemp("cache")) as store:
        yield FactPool(store)


@pytest.fixture(scope="module")
def parts():
    return list(drawn_parts(60, seed=2, size=SIZE))


@pytest.fixture(scope="module")
def examples(parts, pool):
    return list(stage1_examples(parts, pool))


@pytest.fixture(scope="module")
def inspections(examples):
    """The five questions of each part."""
    return [e for e in examples if e.family is not None]


class TestQuestions:
    def test_five_a_part_three_families_both_polarities(self, inspections, parts):
        groups = defaultdict(list)
        for example in inspections:
            groups[example.group].append(example)
        assert len(groups) == len(parts)
        for own in groups.values():
            assert len(own) == 5
            assert {e.family for e in own} == set(FAMILIES)
            assert {e.polarity for e in own} == {"normal", "anomalous"}
            assert len({(e.picture, e.reference, e.facts) for e in own}) == 1

    def test_both_polarities_come_equally_often_and_do_not_give_the_verdict_away(self, inspections):
        counts = Counter((e.polarity, e.anomalous) for e in inspections)
        assert max(counts.values()) < 2 * min(counts.values())
        true = sum(e.verdict for e in inspections) / len(inspections)
        assert 0.4 < true < 0.6

    def test_the_reader_of_questions_understands_every_wording(self, inspections):
        for example in inspections:
            read = read_question(example.question)
            assert (read.family, read.polarity) == (example.family, example.polarity), example.question

    def test_wordings_vary(self, inspections):
        assert len({e.question for e in inspections}) > 120
        assert len({re.sub(r"(upper|lower|left|right|centre)", "", e.answer) for e in inspections}) > 120

    def test_ids_are_unique_and_stable(self, parts, pool, examples):
        assert len({e.id for e in examples}) == len(examples)
        assert list(stage1_examples(parts, pool)) == examples
        assert list(stage1_examples(reversed(parts), pool)) != examples
        assert set(stage1_examples(reversed(parts), pool)) == set(examples)


class TestAnswers:
    def test_state_then_verdict_then_reason(self, inspections):
        for example in inspections:
            state = "anomalous" if example.anomalous else "normal"
            assert example.answer.startswith(f"{state}. {example.verdict}. ")
            assert example.verdict == (example.polarity == state)
            assert example.answer.endswith(".")

    def test_defect_and_place_are_named_where_there_is_one_and_only_there(self, inspections):
        for example in inspections:
            reason = example.answer.split(". ", 2)[2]
            if example.anomalous:
                assert example.defect.casefold() in reason.casefold()
                assert f"{example.place} area" in reason
            else:
                assert example.defect is example.place is None
                assert not any(f"in the {place} area" in reason for place in PLACES)

    def test_an_unknown_defect_or_place_is_not_invented(self, pool):
        part = _part(anomalous=True, defect=None, place=None)
        for example in inspection_examples(part, pool, Stage1Settings()):
            assert "a defect" in example.answer, example.answer
            assert "area" not in example.answer

    def test_a_consequence_is_one_of_the_facts_given(self, inspections):
        cited = 0
        for example in inspections:
            if example.family == "defect diagnosis" and example.anomalous:
                told = [f for f in example.facts if f.rstrip(".").casefold() in example.answer.casefold()]
                assert told or wordings()["unknown_consequence"] in example.answer
                cited += bool(told)
        assert cited >= 5

    def test_the_local_judge_gives_full_marks(self, inspections):
        from sage_ad.evaluation.inspection import Gold, JudgeRequest
        from sage_ad.evaluation.judge.loading import load_judge

        asked = inspections[:40]
        requests = [
            JudgeRequest(
                question=e.question,
                answer=e.answer,
                family=e.family,
                gold=Gold(verdict=e.verdict, anomalous=e.anomalous, defect=e.defect, place=e.place),
                facts=e.facts,
                object=e.product,
            )
            for e in asked
        ]
        means = [score.mean for score in load_judge("local").judge(requests) if score.mean is not None]
        assert np.mean(means) > 4.5


def seen(score: float = 0.7) -> VisualInputs:
    """What the evidence says of a part, without its features."""
    nothing = torch.zeros(1)
    return VisualInputs(
        nothing, nothing, nothing, 1.0, score, 0.5, "references", "lower right",
        "dark line, 90 x 8 px, 40 % darker than the reference there" if score > 0.5 else "",
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(pool):
    """A scratch as many inspections have it."""
    parts = [_part(anomalous=True, defect="scratch", group=f"part{i}") for i in range(400)]
    return [as_measured(part, seen(), pool, seed=0) for part in parts]


class TestAsMeasured:
    def test_state_and_place_are_the_evidences(self, pool, found):
        assert {(part.anomalous, part.place) for part in found} == {(True, "lower right")}
        missed = as_measured(_part(anomalous=True, defect="scratch"), seen(0.4), pool, seed=0)
        assert (missed.anomalous, missed.place, missed.defect, missed.names) == (False, None, None, ())

    def test_a_name_is_asserted_from_the_products_probability_on_and_as_often_right_as_it_says(self, found):
        sure = [part for part in found if part.defect]
        assert all(part.names[0][1] >= ASSERTED and part.defect == part.names[0][0] for part in sure)
        assert all(not part.names or part.names[0][1] < ASSERTED for part in found if not part.defect)
        right = np.mean([part.defect == "scratch" for part in sure])
        assert right == pytest.approx(np.mean([part.names[0][1] for part in sure]), abs=0.05)
        assert 0.2 < np.mean([not part.names for part in found]) < 0.4

    def test_probabilities_leave_a_share_for_none_and_fall(self, found):
        for part in found:
            shares = [share for _, share in part.names]
            assert shares == sorted(shares, reverse=True)
            assert sum(shares) <= 1 + 1e-9
            assert len({name for name, _ in part.names}) == len(shares)

    def test_an_explanation_says_what_was_measured_and_names_no_more_than_the_candidates(self, found, pool):
        from sage_ad.evaluation.judge.defect_match import concepts_of

        said = set()
        for part in found:
            example = list(inspection_examples(part, pool, Stage1Settings()))[-1]
            assert example.family is None
            text = example.answer.removeprefix("anomalous. ")
            assert part.description in text
            assert f"{part.place} area" in text
            own = text.replace("marked area", "area").replace(part.description, "")
            for fact in example.facts:
                own = own.replace(fact, "")
            assert concepts_of(own) <= frozenset().union(*(concepts_of(name) for name, _ in part.names)), text
            said.add((bool(part.defect), bool(part.names), "taught" in text))
        assert (False, False, True) in said
        assert (True, True, False) in said


class TestNoHints:
    def test_zero_and_one_shot_are_mixed_alike_for_good_and_bad(self, inspections):
        shown = defaultdict(list)
        for example in inspections:
            shown[example.anomalous].append(example.reference is not None)
        for own in shown.values():
            assert 0.25 < np.mean(own) < 0.75

    def test_zero_shot_questions_speak_of_no_reference(self, inspections):
        zero = [e.question for e in inspections if e.reference is None]
        assert zero
        assert not any("reference" in q for q in zero)

    def test_facts_do_not_tell_the_label(self, pool):
        """A word counter that sees only the facts does no better than chance on parts of other seeds."""
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import roc_auc_score

        rng = np.random.default_rng(0)
        products = ["gear", "screw", "solar cell", "glass bottle"]
        rows = []
        for i in range(500):
            bad = bool(rng.integers(2))
            defect = (
                str(rng.choice(["scratch", "crack", "stain", "hole", "contamination", "deformation"])) if bad else None
            )
            part = _part(anomalous=bad, defect=defect, product=str(rng.choice(products)), group=f"part{i}")
            example = next(inspection_examples(part, pool, Stage1Settings(no_facts=0)))
            rows.append((" ".join(example.facts), bad))
        texts, labels = zip(*rows, strict=True)
        counted = CountVectorizer(binary=True).fit_transform(texts)
        model = LogisticRegression(C=0.1, max_iter=500).fit(counted[:350], labels[:350])
        assert roc_auc_score(labels[350:], model.predict_proba(counted[350:])[:, 1]) < 0.7

    def test_some_parts_come_without_facts(self, inspections):
        bare = [not e.facts for e in inspections]
        assert 0 < np.mean(bare) < 0.4
        assert max(len(e.facts) for e in inspections) <= 6


class TestWritingFacts:
    def test_is_one_of_the_tasks(self, examples, pool):
        tasks = [e for e in examples if e.task == "facts"]
        assert len(tasks) >= 4
        for task in tasks:
            assert task.picture is task.verdict is None
            lines = task.answer.splitlines()
            assert 3 <= len(lines) <= 5
            known = {f.text for f in pool.about(task.product, task.domain)[1]}
            assert all(line.removeprefix("- ") in known for line in lines)
            assert task.product in task.question

    def test_without_a_knowledge_base_there_are_none(self, parts):
        made = list(stage1_examples(parts[:3]))
        assert {e.task for e in made} == {"inspect"}
        assert not any(e.facts for e in made)


class TestPictures:
    def test_keys_are_stable_and_tell_pictures_apart(self, parts):
        keys = {p.picture.key for p in parts} | {p.reference.key for p in parts}
        assert len(keys) == 2 * len(parts)
        assert parts[0].picture.key == next(iter(drawn_parts(1, seed=2, size=SIZE))).picture.key

    def test_drawn_pictures_load_as_they_were_labelled(self, parts):
        bad = next(p for p in parts if p.anomalous)
        image, reference = bad.picture.load(), bad.reference.load()
        assert image.size == reference.size == (SIZE, SIZE)
        assert image.tobytes() != reference.tobytes()

    def test_good_and_bad_come_equally_often(self, parts):
        assert 0.3 < np.mean([p.anomalous for p in parts]) < 0.7


class TestRealSets:
    @pytest.fixture
    def dataset(self, data_root):
        from sage_ad.evaluation.datasets import open_dataset

        return open_dataset(data_root / "train", categories=["cookie", "screw_plate"])

    def test_real_parts_with_references_and_labels(self, dataset):
        parts = list(real_parts(dataset, limit=6))
        assert Counter((p.category, p.anomalous) for p in parts) == Counter(
            {("cookie", False): 6, ("cookie", True): 6, ("screw_plate", False): 6, ("screw_plate", True): 6}
        )
        for part in parts:
            assert part.reference is not None
            assert part.reference.path != part.picture.path
        missing = [p for p in parts if p.category == "screw_plate" and p.anomalous]
        assert {p.defect for p in missing} == {"missing screw"}
        assert all(p.place in PLACES for p in missing)
        assert list(real_parts(dataset, limit=6)) == parts

    def test_defects_pasted_on_real_parts(self, dataset):
        part = next(pasted_parts(dataset, limit=1))
        assert part.anomalous
        assert part.place in PLACES
        assert part.picture.load().tobytes() != Picture("file", part.picture.path).load().tobytes()


class TestSettings:
    def test_shares_outside_0_to_1_raise(self):
        with pytest.raises(InputError, match="one_shot"):
            Stage1Settings(one_shot=2)


def _part(*, anomalous, defect, place="upper left", product="gear", group="part"):
    return LabelledPart(
        picture=Picture("file", "part.png"),
        reference=Picture("file", "good.png"),
        product=product,
        anomalous=anomalous,
        defect=defect,
        place=place if anomalous else None,
        group=group,
        category=product,
    )
