"""Measures: the shapes of an inspection, data set readers, questions, the MLE rubric and its judges, metrics, reports.
Whole inspections are measured through the `Inspector` protocol, without knowing the agent that makes them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "reports.answer_run": ["AnswerSettings"],
        "reports.calibration": ["calibrate", "conformal_threshold", "needed_normals"],
        "datasets": ["InspectionDataset", "Sample", "load_mask", "open_dataset"],
        "reports.detect_report": ["DetectSettings"],
        "inspection": [
            "InspectionRequest",
            "InspectionTrace",
            "Inspector",
            "MLEScore",
            "load_inspector",
            "Gold",
            "Judge",
            "JudgeRequest",
        ],
        "judge.loading": ["load_judge"],
        "reports.metrics": ["Figure", "PixelTally", "bootstrap", "bootstrap_mean"],
        "questions": ["GoldQuestion", "Question", "build_questions", "family_of", "polarity_of", "standard_questions"],
        "datasets.sample_questions": ["questions_for"],
        "template_inspector": ["EvidenceTemplateInspector"],
    },
)
