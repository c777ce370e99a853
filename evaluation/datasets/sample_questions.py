"""Questions about a labelled sample, with what the data set says of it as gold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage_ad.evaluation.questions import GoldQuestion, build_questions, defect_words, product_words

if TYPE_CHECKING:
    from sage_ad.evaluation.datasets import Sample


def questions_for(sample: Sample, *, seed: int = 0, product: str | None = None) -> list[GoldQuestion]:
    """Five questions about a sample of a labelled set; the place is read from its mask or boxes."""
    from sage_ad.evaluation.datasets import place_of_sample

    return build_questions(
        product=product or product_words(sample.category),
        anomalous=sample.anomalous,
        defect=defect_words(sample.defect),
        place=place_of_sample(sample) if sample.anomalous else None,
        group=sample.id,
        seed=seed,
    )
