"""The embedded encoder and an extractor on it, loaded once a module."""

from __future__ import annotations

import pytest

from sage_ad.vlm.evidence.encoders import PatchEncoder, load_encoder
from sage_ad.vlm.evidence.extractor import EvidenceExtractor


@pytest.fixture(scope="module")
def encoder() -> PatchEncoder:
    """EfficientNet-Lite2."""
    return load_encoder()


@pytest.fixture(scope="module")
def extractor(encoder: PatchEncoder) -> EvidenceExtractor:
    """An extractor with the usual settings."""
    return EvidenceExtractor(encoder=encoder)
