"""Baselines: one file per model family."""

from avbench.system.lazy import modules_of

__getattr__ = modules_of(__name__)
