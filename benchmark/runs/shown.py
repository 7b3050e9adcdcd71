"""A result as Python shows it: in short in a list, as the table of scores where it is printed or ends a cell of a
notebook. What a result is stands in ``avbench.results.run``, which knows nothing of tables on a screen."""

from __future__ import annotations

from pathlib import Path

from pydantic import PrivateAttr

from avbench.pages.run_text import summary, summary_html
from avbench.results.run import RunResult
from avbench.types import printable


class Evaluation(RunResult):
    """A ``RunResult`` that ``print`` and notebooks show as the table that ``avbench run`` prints; ``repr`` is a few
    lines."""

    _folder: Path | None = PrivateAttr(None)

    @property
    def folder(self) -> Path | None:
        """Where its files are; None if that is not known."""
        return self._folder

    @classmethod
    def of(cls, result: RunResult, folder: Path) -> Evaluation:
        """``result``, whose files are in ``folder``."""
        shown = cls.model_validate(dict(result))
        shown._folder = folder
        return shown

    def __eq__(self, other: object) -> bool:
        """Equal results, wherever their files are."""
        return isinstance(other, RunResult) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]  # it holds lists and maps, as every RunResult

    def _in_short(self) -> str:
        return super()._in_short() + (f"\n  folder {printable(str(self._folder))}" if self._folder else "")

    def __str__(self) -> str:
        return summary(self, self._folder)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return summary_html(self, self._folder)
