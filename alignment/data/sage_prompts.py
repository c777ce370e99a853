"""How SAGE models see rows of preference data: as in stage 1 and in inspection, from the same frozen features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sage_ad.alignment.data.prompts import Row, SagePrompts, View
from sage_ad.vlm.sage.generation import UNCALIBRATED, prefix_inputs

if TYPE_CHECKING:
    from sage_ad.alignment.data.features import VisualInputCache
    from sage_ad.vlm.sage.visual_inputs import VisualInputs


class VisualInputPrompts(SagePrompts):
    """Prompts of a SAGE model with a frozen encoder: patch features, evidence, measurement, facts, question.

    A row has `prompt` (the question), `facts`, `picture_file`, and where known `reference_file`, `product` and `candidates`
    (names with probabilities).

    Args:
        model: gives the calibration of the evidence.
        processor: makes tokens; its mode of facts is kept.
        cache: what the frozen encoder saw.
    """

    def __init__(self, model: Any, processor: Any, cache: VisualInputCache) -> None:
        super().__init__(processor)
        self.cache = cache
        self.calibration = model.config.calibration or UNCALIBRATED

    def encode(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Inputs of the model for the rows' prompts, padded on the left."""
        import torch

        seen = [visual_inputs_of_row(row, self.cache) for row in rows]
        inputs = prefix_inputs(
            self.processor,
            seen,
            [measured_in(row, visual) for visual, row in zip(seen, rows, strict=True)],
            [list(row["facts"]) for row in rows],
            [[row["prompt"]] for row in rows],
            self.processor.facts,
            self.calibration,
        )
        # A prompt alone shares all but its last token with itself; that token goes back behind the prefix.
        ends = torch.tensor([own[0] for own in inputs.pop("tails")])
        inputs["input_ids"] = torch.cat((inputs["input_ids"], ends), dim=1)
        inputs["attention_mask"] = torch.cat((inputs["attention_mask"], torch.ones_like(ends)), dim=1)
        return inputs


def visual_inputs_of_row(row: Row, cache: VisualInputCache) -> VisualInputs:
    """What the frozen encoder saw of a row's picture, beside its reference."""
    from sage_ad.alignment.data.labelled import Picture

    reference = Picture("file", row["reference_file"]) if row.get("reference_file") else None
    return cache.get(Picture("file", row["picture_file"]), reference)


def measured_in(row: Row, visual: VisualInputs) -> str:
    """What is known of a row's part, in the words of the prompt."""
    names = [(own["name"], own["probability"]) for own in row.get("candidates") or ()]
    return visual.measured(row.get("product"), names)


def picture_view(model: Any, cache: VisualInputCache) -> View:
    """What a SAGE model with eyes of its own is given of a row: pictures, and the measured evidence where calibrated."""

    def view(row: Row) -> Mapping[str, Any]:
        from sage_ad.vlm.images import load_image

        seen: dict[str, Any] = {"pictures": [load_image(row["picture_file"])]}
        if row.get("reference_file"):
            seen["references"] = [load_image(row["reference_file"])]
        if model.config.calibration:
            from sage_ad.vlm.sage.generation import evidence_log_odds

            visual = visual_inputs_of_row(row, cache)
            seen |= {
                "measured": measured_in(row, visual),
                "evidence": evidence_log_odds(visual, model.config.calibration),
            }
        return seen

    return view
