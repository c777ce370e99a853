"""Drawn parts with drawn defects, to train on without real images."""
