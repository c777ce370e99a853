"""Sees and speaks: images to patch features, test/reference comparison and evidence map, and the language models
behind one interface."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "backends": ["Capabilities", "Choice", "Completion", "LanguageBackend", "Usage", "load_backend"],
        "comparison": ["distinct_patches", "patch_similarity"],
        "configuration_sage": ["SageConfig"],
        "encoders": ["PatchEncoder", "PatchFeatures", "load_encoder"],
        "errors": ["BackendError", "InputError", "SageError"],
        "evidence": ["Evidence", "EvidenceExtractor", "EvidenceSettings"],
        "images": ["list_images", "load_image"],
        "modeling_sage": ["SageForConditionalGeneration"],
        "picture": ["evidence_picture"],
        "places": ["PLACES", "place_of_box"],
        "processing_sage": ["SageProcessor"],
        "scripted": ["ScriptedBackend"],
        "served": ["ServedBackend"],
        "references": ["ReferenceBank"],
        "regions": ["EvidenceRegion"],
    },
)
