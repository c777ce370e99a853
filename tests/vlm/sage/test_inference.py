"""The embedded model for inference writes what transformers' model writes, word for word."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from sage_ad.evaluation.questions import standard_questions  # noqa: E402
from sage_ad.vlm.backends.sage_backend import SageBackend, load_sage  # noqa: E402
from sage_ad.vlm.evidence.extractor import EvidenceExtractor  # noqa: E402
from sage_ad.vlm.images import load_image  # noqa: E402
from sage_ad.vlm.sage.checkpoint import BEST, FOLDER, load_checkpoint  # noqa: E402
from sage_ad.vlm.sage.generation import PartQuery  # noqa: E402
from sage_ad.vlm.sage.visual_inputs import visual_inputs_of  # noqa: E402

FACTS = ("A crack is a thin dark line.", "A stain is a dull area.", "Fingers are thin bright lines.")


@pytest.fixture(scope="module")
def parts(elpv) -> list[PartQuery]:
    """A cracked and a good cell, with more or fewer facts and questions: rows of unlike length."""
    files = {path.name: path for paths in elpv.values() for path in paths}
    cracked, good = load_image(files["cell0404.png"]), load_image(files["cell0532.png"])
    extractor, asked = EvidenceExtractor(), standard_questions()
    seen = extractor.extract(cracked, extractor.prepare([good]))
    bad = PartQuery(
        visual_inputs_of(seen), tuple(q.text for q in asked), tuple(q.polarity for q in asked), FACTS, "solar cell"
    )
    fine = replace(bad, visual=visual_inputs_of(extractor.extract(good)), facts=FACTS[:1], product=None)
    return [bad, replace(fine, questions=bad.questions[:1], polarities=bad.polarities[:1])]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_alone_and_together_parts_are_answered_word_for_word(parts: list[PartQuery], dtype: str) -> None:
    model, processor, _ = load_checkpoint(FOLDER / BEST, dtype=getattr(torch, dtype))
    expected, ours = SageBackend(model, processor, name="transformers"), load_sage(FOLDER / BEST, dtype=dtype)
    together = [*parts, parts[0]]  # so many answers are written a few tokens at a time
    one = replace(parts[0], questions=parts[0].questions[:1], polarities=parts[0].polarities[:1])
    ways = [({"mode": "soft"}, [one]), ({"mode": "hard"}, [one]), ({}, together)]
    for settings, queries in ways:
        replies = [one.answer_parts(queries, max_new_tokens=8, **settings) for one in (ours, expected)]
        assert replies[0] == replies[1]


def test_a_watcher_is_given_the_answers_while_they_are_written(parts: list[PartQuery]) -> None:
    told = ["", ""]

    def tell(part: int, _question: int, piece: str) -> None:
        told[part] += piece

    one = replace(parts[0], questions=parts[0].questions[:1], polarities=parts[0].polarities[:1])
    replies = load_sage(FOLDER / BEST).answer_parts([one, parts[1]], on_text=tell)
    assert told == [reply.texts[0] for reply in replies]
