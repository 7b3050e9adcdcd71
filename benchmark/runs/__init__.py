"""What a user runs: evaluate, sweep, compare."""
