"""Sees and speaks: images to patch features, test/reference comparison and evidence map, and the language models
behind one interface."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "backends.base": ["Capabilities", "Choice", "Completion", "LanguageBackend", "Usage"],
        "backends.registry": ["load_backend"],
        "evidence.patch_matching": ["distinct_patches", "patch_similarity"],
        "sage.configuration_sage": ["SageConfig"],
        "evidence.encoders": ["PatchEncoder", "PatchFeatures", "load_encoder"],
        "errors": ["BackendError", "InputError", "SageError"],
        "evidence.extractor": ["Evidence", "EvidenceExtractor", "EvidenceSettings"],
        "images": ["list_images", "load_image"],
        "sage.modeling_sage": ["SageForConditionalGeneration"],
        "evidence.visualize": ["evidence_picture"],
        "loaded": ["release_models"],
        "places": ["PLACES", "place_of_box"],
        "sage.processing_sage": ["SageProcessor"],
        "backends.scripted": ["ScriptedBackend"],
        "backends.served": ["ServedBackend"],
        "evidence.memory_bank": ["MemoryBank"],
        "evidence.regions": ["EvidenceRegion"],
    },
)
