"""Parsing of answers: sentences, claims, verdicts, places and similarity."""
