"""Published checkpoints: list, fetch, read, convert, verify."""
