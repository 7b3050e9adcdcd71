"""Metrics, statistics, ranking, selection."""
