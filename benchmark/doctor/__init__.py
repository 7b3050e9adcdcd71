"""Check this machine, or a model."""
