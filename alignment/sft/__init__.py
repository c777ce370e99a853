"""Stage 1, Self-Guided Fact Enhancement: configuration, data, trainer, calibration."""
