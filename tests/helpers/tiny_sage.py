"""The embedded composition in small: a tiny random language model, random patch features, two questions with facts."""

from __future__ import annotations

import torch
from tiny_models import tiny_language_model, tiny_tokenizer
from torch.nn import functional as F

from sage_ad.vlm.sage.processing_sage import SageProcessor
from sage_ad.vlm.sage.wrapping import from_base

CHANNELS, GRID = 12, 6
FACTS = [["a scratch is a crack in the area", "there is a hole"], ["no hole in the centre", "a scratch"]]
QUESTIONS = ["Is there a scratch?", "Is the part normal or is there a hole in the upper left area?"]


def features(seed: int, n: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, GRID, GRID, CHANNELS, generator=generator), dim=-1)


def make(**settings):
    """A fresh model and its processor."""
    processor = SageProcessor.from_base(tiny_tokenizer(), image_side=3, **settings.pop("processor", {}))
    torch.manual_seed(0)
    settings = {"distinct": 4, "fusion_heads": 4, **settings}
    model = from_base(tiny_language_model(), processor=processor, patch_channels=CHANNELS, **settings)
    for linear in model.fusion.modules():
        if isinstance(linear, torch.nn.Linear):
            torch.nn.init.normal_(linear.weight, std=0.3)
    return model, processor


def batch(processor, rows=(0, 1), references=(10, None), facts=FACTS, **kwargs):
    """Inputs for the questions; the first with a reference, the second without."""
    return processor(
        text=[QUESTIONS[r] for r in rows],
        patch_features=torch.cat([features(r) for r in rows]),
        reference_features=[None if references[r] is None else features(references[r], 2) for r in rows],
        facts=[facts[r] for r in rows],
        **kwargs,
    )
