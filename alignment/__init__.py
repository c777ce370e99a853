"""Teaches: synthetic and labelled inspection data for stage 1 (fact-enhanced fine-tuning), and the trainers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "edpo.config": ["EDPOConfig"],
        "edpo.loss": ["edpo_logits", "edpo_loss"],
        "edpo.trainer": ["EDPOTrainer"],
        "data.labelled": ["LabelledPart", "Picture", "drawn_parts", "pasted_parts", "real_parts"],
        "data.pairs": ["AnswerPair", "entropies", "select_pairs"],
        "data.prefix_sharing": ["pack_answers", "token_log_probs"],
        "data.questions": ["FactPool", "Stage1Example", "Stage1Settings", "stage1_examples"],
        "synthetic.generate": [
            "DEFECTS",
            "PRODUCTS",
            "SyntheticSample",
            "generate",
            "paste_defect",
        ],
    },
)
