"""Names from taught vectors: the nearest kind, how many examples agree, and what was never taught."""

from __future__ import annotations

import numpy as np
import pytest

from sage_ad.knowledge.looks.index import Candidate, LooksIndex, Naming
from sage_ad.vlm.evidence.region_features import RegionFeatures

KINDS = ("crack", "dent", "stain")


def features(kind: int | None, seed: int, *, telling: tuple[int, ...] = (0, 1, 2)) -> RegionFeatures:
    """Vectors near a centre of their own for each kind; those not in `telling` say nothing."""
    centres = np.random.default_rng(99).normal(size=(len(KINDS), 3, 32))
    noise = np.random.default_rng(seed).normal(size=(3, 32))
    product = np.random.default_rng(7).normal(size=(3, 32)) * 3
    offset = np.zeros((3, 32))
    if kind is not None:
        offset[list(telling)] = centres[kind][list(telling)]
    return RegionFeatures(*(product + offset + 0.3 * noise).astype(np.float32), np.zeros(1, np.float32))


def taught(examples: int, **options: tuple[int, ...]) -> LooksIndex:
    rows = [
        (features(kind, 10 * kind + i, **options), name) for kind, name in enumerate(KINDS) for i in range(examples)
    ]
    return LooksIndex([row[0] for row in rows], [row[1] for row in rows])


@pytest.mark.parametrize("examples", [1, 3])
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_region_bears_the_name_of_the_kind_it_resembles(examples: int, kind: int) -> None:
    naming = taught(examples).name(features(kind, 500 + kind))
    first = naming.candidates[0]
    assert (first.name, first.agree, first.examples) == (KINDS[kind], examples, examples)
    assert sum(c.probability for c in naming.candidates) + naming.unknown == pytest.approx(1, abs=1e-3)


def test_more_examples_that_agree_make_the_name_more_probable() -> None:
    one, three = (taught(examples).name(features(0, 500)).candidates[0].probability for examples in (1, 3))
    assert three > one


def test_what_resembles_nothing_taught_is_probably_unknown() -> None:
    index = taught(3)
    like = [index.name(features(kind, 500 + kind)).unknown for kind in range(3)]
    unlike = [index.name(features(None, 600 + i)).unknown for i in range(3)]
    assert min(unlike) > max(like)
    assert index.name(features(None, 600)).asserted is None


def test_vectors_that_tell_nothing_are_outvoted_once_examples_show_it() -> None:
    index = taught(4, telling=(2,))
    named = [index.name(features(i % 3, 700 + i, telling=(2,))).candidates[0].name for i in range(12)]
    assert named == [KINDS[i % 3] for i in range(12)]


def test_with_one_kind_taught_nothing_is_asserted() -> None:
    naming = LooksIndex([features(0, 1), features(0, 2)], ["crack", "crack"]).name(features(0, 3))
    assert (naming.candidates[0].name, naming.asserted) == ("crack", None)


def test_the_order_of_teaching_does_not_matter() -> None:
    rows = [(features(kind, 10 * kind + i), name) for kind, name in enumerate(KINDS) for i in range(2)]
    forward, backward = (
        LooksIndex([row[0] for row in order], [row[1] for row in order]).name(features(1, 500))
        for order in (rows, rows[::-1])
    )
    assert forward == backward


def test_words_say_which_examples_agree() -> None:
    stain, oil = Candidate("stain", 0.81, 3, 3), Candidate("oil spot", 0.11, 0, 1)
    known = Naming([stain, oil], 0.08).in_words()
    assert (
        known == "Most likely stain (0.81, like 3 of your 3 examples); else oil spot (0.11, like 0 of your 1 example)"
    )
    unknown = Naming([Candidate("stain", 0.2, 1, 3), Candidate("oil spot", 0.01, 0, 1)], 0.79).in_words()
    assert unknown.startswith("Probably not one of the known kinds (0.79)")
    assert "oil spot" not in unknown
