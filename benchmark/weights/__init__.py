"""Published checkpoints: list, fetch, read, convert, verify."""

from avbench.system.lazy import modules_of

__getattr__ = modules_of(__name__)
