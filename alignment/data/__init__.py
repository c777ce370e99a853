"""Training data: labelled sets, preference lists, judge scores, pairs and prompts."""
