"""Names of classes: what factories call good parts must not teach that they are defective, nor the other way round."""

from __future__ import annotations

import pytest

from sage_ad.evaluation.datasets.names import good_names, is_good_name

GOOD = (
    "good|ok|OK|normal|ok_front|iO|i.O.|io|OK parts|OKParts|ok2|good_1|pass|passed|accepted|non_defective|nondefective|"
    "NonDefective|no_defect|defect-free|without defects|Undamaged|non-cracked|良品|正常|合格|양품|годен|Gut|"
    "Gutteile|bonne|conforme"
)
BAD = (
    "bad|NG|NOK|nok|niO|n.i.O.|not ok|not_good|no good|NG parts|def_front|defective|abnormal|anomaly|reject|不良|不良品|不合格|"
    "no_label|missing|good_and_bad|okra|goodyear|normal_wear|ok scratch|defect|1|schlecht|défaut|unbroken seal|impassable"
)


@pytest.mark.parametrize("name", GOOD.split("|"))
def test_names_of_good_parts(name: str) -> None:
    assert is_good_name(name)


@pytest.mark.parametrize("name", BAD.split("|"))
def test_names_of_defects(name: str) -> None:
    assert not is_good_name(name)


def test_names_that_mean_something_only_together() -> None:
    assert good_names(["0", "1"]) == {"0"}
    assert good_names(["Positive", "Negative"]) == {"Negative"}
    assert good_names(["0", "1", "2"]) == set()
    assert good_names(["ok", "0"]) == {"ok"}
    assert good_names([]) == set()
