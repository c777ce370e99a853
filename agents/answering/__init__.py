"""Turns evidence, facts and a model's words into answers to questions."""
