"""How a sentence sounds as a whole: like praise of a part, or like a complaint about it.

A linear model of the sentence embedding (ridge regression on the sentences of exemplars.yaml; +1 complaint, -1
praise), for what no word list covers. The fitted weights stand in sentiment.yaml; `python -m sage_ad.evaluation.text.sentiment`
fits them anew after the exemplars were changed.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from sage_ad.evaluation.text.lexicon import exemplars

if TYPE_CHECKING:
    import numpy as np

WEIGHTS = "sentiment.yaml"
_RIDGE = 1.0
_DECIMALS = 5


def fit_weights(praise: np.ndarray, complaints: np.ndarray, ridge: float = _RIDGE) -> np.ndarray:
    """Ridge regression with both classes weighted alike.

    Args:
        praise: unit vectors (n, d) of sentences that speak for a part.
        complaints: unit vectors (m, d) of sentences that speak against it.
        ridge: strength of the regularisation.

    Returns:
        d weights and the intercept.
    """
    import numpy as np

    vectors = np.vstack([praise, complaints]).astype(np.float64)
    rows = np.hstack([vectors, np.ones((len(vectors), 1))])
    target = np.repeat([-1.0, 1.0], [len(praise), len(complaints)])
    share = np.repeat([1 / len(praise), 1 / len(complaints)], [len(praise), len(complaints)]) * len(rows) / 2
    weighted = rows * share[:, None]
    return np.linalg.solve(weighted.T @ rows + ridge * np.eye(rows.shape[1]), weighted.T @ target)


@cache
def _weights() -> np.ndarray:
    import numpy as np
    import yaml

    return np.asarray(
        yaml.safe_load(files("sage_ad.evaluation.text").joinpath(WEIGHTS).read_text(encoding="utf-8"))["weights"]
    )


def sentiment_of(vector: np.ndarray) -> float:
    """The sentiment of one unit vector of the default sentence encoder: above 0 a complaint, below 0 praise."""
    weights = _weights()
    return float(vector @ weights[:-1] + weights[-1])


def main() -> None:
    """Fits the weights on the exemplars and writes them beside this file."""
    import yaml

    from sage_ad.knowledge.vectors.embedding import default_embedder

    lists = exemplars()
    embedder = default_embedder()
    weights = fit_weights(embedder.encode(lists["good"]), embedder.encode(lists["bad"]))
    content = {"encoder": embedder.name, "ridge": _RIDGE, "weights": [round(float(one), _DECIMALS) for one in weights]}
    text = (
        "# Fitted by `python -m sage_ad.evaluation.text.sentiment` on exemplars.yaml; not written by hand.\n"
        + yaml.safe_dump(content)
    )
    Path(__file__).with_name(WEIGHTS).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
