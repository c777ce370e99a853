"""SAGE: explainable visual inspection. The rooms are folders at the top of the repository, linked here."""
