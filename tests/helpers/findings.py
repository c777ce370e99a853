"""The state of an inspection that has found a dark spot, and the cards of its pack, for tests of what is said."""

from __future__ import annotations

from typing import Any

from sage_ad.knowledge.store.cards import CardLook, DefectCard
from sage_ad.vlm.evidence.description import Description

SPOT = Description(
    box=(10, 20, 50, 50),
    background="reference",
    tone=-0.18,
    colour=(0.0, 0.0),
    colour_change=None,
    colour_name="grey",
    texture=None,
    edge=0.1,
    shape="round spot",
    angle=None,
    length=40.0,
    width=30.0,
    area=900,
    share=0.01,
    count=1,
)


def card(name: str, **fields: Any) -> DefectCard:
    """A card with a look that fits the spot."""
    look = {
        "tone": ["darker"],
        "shape": ["blob"],
        "size": ["medium"],
        "texture": ["same"],
        "place": ["surface"],
        "number": ["single"],
        "text": "A dark spot.",
    }
    values = {
        "causes": [f"What causes a {name}."],
        "consequence": f"What follows from a {name}.",
        "severity": "cosmetic",
        "action": f"How to treat a {name}.",
        **fields,
    }
    return DefectCard(name=name, look=CardLook.model_validate(look), **values)


CARDS = {own.name: own for own in (card("stain", standards=["ISO 1"]), card("hole", severity="functional"))}


def state(verdict: str = "anomalous", **changes: Any) -> dict[str, Any]:
    """An inspection of a cloth with one region, and no name asserted."""
    region = {
        "box": [10, 20, 50, 50],
        "place": "upper left",
        "score": 0.7,
        "description": SPOT.in_words(),
        "measured": SPOT.to_dict(),
    }
    return {
        "product": "woven cloth",
        "domain": "textiles",
        "covered": True,
        "defect": None,
        "candidates": [],
        "facts": [],
        "settings": {"mm_per_pixel": None, "facts": "auto"},
        "evidence": {
            "score": 0.63 if verdict == "anomalous" else 0.41,
            "threshold": 0.5,
            "threshold_from": "references",
            "threshold_reason": "",
            "verdict": verdict,
            "confidence": 0.9,
            "confidence_reason": "From three good parts.",
            "regions": [region] if verdict == "anomalous" else [],
            "size": [200, 200],
            "peak": "upper left",
            "references": 3,
        },
        **changes,
    }


def looks(name: str, probability: float) -> dict[str, Any]:
    return {"name": name, "probability": probability, "source": "looks", "reason": "like 3 of your 3 examples"}
