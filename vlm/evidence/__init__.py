"""Patch features, comparison with references, evidence map and regions."""
