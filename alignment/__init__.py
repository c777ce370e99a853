"""Teaches: synthetic and labelled inspection data for stage 1 (fact-enhanced fine-tuning), and the trainers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "edpo_config": ["EDPOConfig"],
        "edpo_loss": ["edpo_logits", "edpo_loss"],
        "edpo_trainer": ["EDPOTrainer"],
        "entropy": ["entropies"],
        "labelled": ["LabelledPart", "Picture", "drawn_parts", "pasted_parts", "real_parts"],
        "pairs": ["AnswerPair", "select_pairs"],
        "prefix_sharing": ["pack_answers", "token_log_probs"],
        "stage1_data": ["FactPool", "Stage1Example", "Stage1Settings", "split_by_category", "stage1_examples"],
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
