"""Training of the embedded baselines."""
