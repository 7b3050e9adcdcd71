"""Measuring time."""
