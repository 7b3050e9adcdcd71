"""What a run leaves: run.json, predictions, and the truth they are scored against."""

from avbench.results.run import RunResult, read_run, write_run

__all__ = ["RunResult", "read_run", "write_run"]
