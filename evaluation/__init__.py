"""Measures: requests, traces and inspectors, data set readers, question templates, the MLE rubric and its judges, metrics and reports."""
