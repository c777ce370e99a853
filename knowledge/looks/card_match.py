"""Which defect cards of a pack fit what was measured: the card's controlled words against the measured description.

A fit is no proof: many defects look alike to a camera. It orders the names that are worth a thought and never asserts
one; a name is asserted from taught looks only (`sage_ad.knowledge.looks.index`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage_ad.knowledge.store.cards import CardLook, DefectCard
    from sage_ad.vlm.evidence.description import Description

SHAPES = {"line": "line", "ring": "ring", "round spot": "blob", "spot": "blob", "area": "area"}
"""Shapes of the measured description in the words of the cards."""
HUES = {"olive": "green", "turquoise": "green", "beige": "yellow"}
"""Colour names of the measured description that cards do not use, and the nearest that they do."""
SIZES = ((0.001, "tiny"), (0.01, "small"), (0.1, "medium"))
"""Shares of the picture below which a region has the card's word for its size; above: "large"."""
MISS = {"tone": 0.5, "shape": 0.4, "size": 0.7, "texture": 0.7, "colour": 0.6, "number": 0.8}
"""What a field that does not fit leaves of the whole fit. A neighbouring size costs half as much."""


def card_fit(look: CardLook, found: Description, regions: int = 1) -> float:
    """How well a measured region fits a card's look, from 0 to 1 (every field fits).

    Args:
        look: of the card.
        found: the strongest region.
        regions: how many regions stand out.
    """
    from sage_ad.vlm.evidence.description import TEXTURE, TONE

    fit = 1.0
    tone = "same" if abs(found.tone) < TONE else "darker" if found.tone < 0 else "lighter"
    if tone not in look.tone:
        fit *= MISS["tone"]
    if SHAPES[found.shape] not in look.shape:
        fit *= MISS["shape"]
    size = next((word for limit, word in SIZES if found.share < limit), "large")
    order = [word for _, word in SIZES] + ["large"]
    away = min(abs(order.index(size) - order.index(word)) for word in look.size)
    fit *= 1 - (1 - MISS["size"]) * min(away, 2) / 2
    if found.texture is not None:
        rough, smooth = found.texture >= TEXTURE, found.texture <= 1 / TEXTURE
        words = {"broken", "added", "sharper"} if rough else {"smoother", "missing"} if smooth else {"same"}
        if not words & set(look.texture):
            fit *= MISS["texture"]
    name = found.colour_name.split()[-1]
    if look.colour and HUES.get(name, name) not in look.colour:
        fit *= MISS["colour"]
    number = {"single"} if max(regions, found.count) == 1 else {"several", "repeating"}
    if not number & set(look.number):
        fit *= MISS["number"]
    return fit


def ranked_cards(cards: Sequence[DefectCard], found: Description, regions: int = 1) -> list[tuple[DefectCard, float]]:
    """Cards with their fit, best first; cards that fit alike keep the pack's order (usual defects first)."""
    return sorted(((card, card_fit(card.look, found, regions)) for card in cards), key=lambda pair: -pair[1])
