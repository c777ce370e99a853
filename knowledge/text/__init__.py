"""Sentences, quantities, contradictions and orders to the model, found in text."""
