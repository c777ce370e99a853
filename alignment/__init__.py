"""Teaches: synthetic and labelled inspection data for stage 1 (fact-enhanced fine-tuning), and the trainers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "stage1_data": ["Stage1Example", "Stage1Settings", "stage1_examples"],
        "synthetic": [
            "DEFECTS",
            "PRODUCTS",
            "SyntheticSample",
            "contact_sheet",
            "generate",
            "generate_many",
            "paste_defect",
        ],
    },
)
