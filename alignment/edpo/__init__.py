"""Stage 2, Entropy-aware DPO: configuration, data, loss, trainer (Eq. 3 to 7)."""
