"""What a user runs: evaluate, sweep, compare, predict."""

from avbench.system.lazy import modules_of

__getattr__ = modules_of(__name__)
