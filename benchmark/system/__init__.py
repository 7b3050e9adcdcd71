"""Files, machine, precision, caches, strict JSON, environment facts, progress."""
