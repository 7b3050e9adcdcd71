"""Snapshots: computed once, stored, replayed."""
