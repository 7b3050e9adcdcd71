"""Baselines: one file per model family."""
