"""Patch features and facts to the tokens that stand in a prompt: LN-Proj(image) and LN-Proj(t^s) (Eq. 1, 2 and 9).

What the trainable model (`sage_ad.vlm.sage.modeling_sage`) and the one for inference (`sage_ad.vlm.sage.inference`) share.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from sage_ad.vlm.evidence.patch_matching import distinct_patches, patch_similarity
from sage_ad.vlm.sage.fusion import mean_of_tokens, rare_patches

REFERENCE = "reference_"
"""Prefix of the inputs that hold the reference's pixels: `reference_pixel_values`, `reference_image_grid_thw`, ..."""


class PatchEncoding:
    """Encodes what comes from a frozen encoder.

    Attributes:
        config: fields of `SageConfig`.
        fusion: a `sage_ad.vlm.sage.modules.SageFusion`.
        get_input_embeddings: gives the token embeddings of the language model; both models bring it.
    """

    config: Any
    fusion: Any
    get_input_embeddings: Any

    def encode(self, input_ids: torch.Tensor, inputs: dict[str, Any]) -> dict[str, Any]:
        """Computes LN-Proj(image) and LN-Proj(t^s) once, for `forward`, generation and shared prefixes.

        Args:
            input_ids: (batch, length), with one placeholder for each image token and each fact.
            inputs: arguments of `forward`; those that were used up are taken out of the dictionary.

        Returns:
            `mm_encoder_outputs` (image tokens, as Hugging Face passes them on) and `fact_features` (batch, L, width),
            each where there is one.

        Raises:
            ValueError: there are facts, but no picture.
        """
        shown, test, reference, match = self._see(input_ids, inputs)
        facts = self._fact_vectors(inputs)
        distinct = inputs.pop("distinct", None)
        encoded: dict[str, Any] = {}
        if shown is not None:
            encoded["mm_encoder_outputs"] = {"image": shown}
        if facts is not None:
            if test is None:
                raise ValueError("facts are fused with patches (Eq. 2), so an image must come with them")
            chosen = [
                patches[self._choose(unit, None if reference is None else reference[i], distinct, i)]
                for i, (patches, unit) in enumerate(zip(test, match, strict=True))
            ]
            encoded["fact_features"] = self.fusion.fuse(facts, chosen)
        return encoded

    def _choose(
        self, test: torch.Tensor, reference: torch.Tensor | None, distinct: torch.Tensor | None, row: int
    ) -> torch.Tensor:
        """Indices of the patches that facts attend to: given ones, else Eq. 1, else (zero-shot) all or the rarest."""
        if distinct is not None and bool((given := distinct[row][distinct[row] >= 0]).numel()):
            return given
        if reference is not None and len(reference):
            return distinct_patches(
                patch_similarity(test, reference, matching=self.config.matching), self.config.distinct
            )
        if self.config.zero_shot == "rarity":
            return rare_patches(test, self.config.distinct)
        return torch.arange(len(test), device=test.device)

    def _see(self, input_ids: torch.Tensor, inputs: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
        """Image tokens for the language model, patches of the test images, and unit vectors of both sides for Eq. 1."""
        rows: list[int] | None = None
        if (counted := inputs.pop("reference_rows", None)) is not None:
            rows = counted.tolist()
        grid, evidence = inputs.pop("patch_features", None), inputs.pop("patch_evidence", None)
        known = inputs.pop(REFERENCE + "features", None)
        if grid is None:
            return None, None, None, None
        patches = self.fusion.adapter(grid, evidence).flatten(1, 2)
        shown = list(self._pooled(grid, evidence))
        reference = None
        if known is not None and rows is not None:
            reference = F.normalize(known.float(), dim=-1).flatten(0, 2).split(rows)
            if self.config.show_reference:
                images = self._pooled(known, None).split([n // known[0, ..., 0].numel() for n in rows])
                shown = [torch.cat((r.flatten(0, 1), t)) for r, t in zip(images, shown, strict=True)]
        # The frozen features compare better than the adapter's while it learns, and they need no gradient.
        match = list(F.normalize(grid.float(), dim=-1).flatten(1, 2))
        return shown, list(patches), reference, match

    def _pooled(self, grid: torch.Tensor, evidence: torch.Tensor | None) -> torch.Tensor:
        """LN-Proj(image), `image_side` squared tokens an image: vectors are averaged, the evidence keeps its peaks."""
        side = self.config.image_side
        pooled = F.adaptive_avg_pool2d(grid.permute(0, 3, 1, 2), side).permute(0, 2, 3, 1)
        peak = None if evidence is None else F.adaptive_max_pool2d(evidence[:, None], side)[:, 0]
        return self.fusion.image_projection(self.fusion.adapter(pooled, peak)).flatten(1, 2)

    def _fact_vectors(self, inputs: dict[str, Any]) -> torch.Tensor | None:
        """t^g, (batch, L, C): given embeddings, or the mean of the language model's token embeddings."""
        embeddings, ids = inputs.pop("fact_embeddings", None), inputs.pop("fact_ids", None)
        mask = inputs.pop("fact_attention_mask", None)
        if self.config.fact_channels is not None:
            return embeddings
        if ids is None:
            return None
        mask = torch.ones_like(ids) if mask is None else mask
        return mean_of_tokens(self.get_input_embeddings()(ids), mask)
