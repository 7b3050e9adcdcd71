"""The files of a run: run.json, predictions, and the truth they are scored against."""

from avbench.results.run import RunResult, read_run, write_run
from avbench.system.lazy import modules_of

__all__ = ["RunResult", "read_run", "write_run"]

__getattr__ = modules_of(__name__)  # the room's other modules
