"""Submissions: the format, and packing, checking and pushing entries."""
