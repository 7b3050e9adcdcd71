"""Streaming heads by name: those of the package, and those from outside (a user's file, or an entry point).

A head from outside is ``path/to/file.py:ClassName``, or an entry point of the group ``avbench.heads`` whose value is a
class or function that returns a ``StreamingHead`` when called. It brings its own weights.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

from avbench.registry.user_files import HEAD, file_and_class, is_file, load_entry_point, load_from_file, registered
from avbench.types import StreamingHead, UsageError


@dataclass(frozen=True, slots=True)
class BuiltInHead:
    """``target``: "module:Class". A ``learned`` head needs weights; the others work on any backbone, being fed the
    logits alone."""

    target: str
    description: str
    learned: bool = False


HEADS = {
    "none": BuiltInHead("avbench.baselines.apa:NoHead", "the last window alone"),
    "apa": BuiltInHead("avbench.baselines.apa:Apa", "mean probability of all windows up to now"),
    "apa-sliding": BuiltInHead("avbench.baselines.apa:SlidingApa", "mean probability of the last windows"),
    "apa-decay": BuiltInHead("avbench.baselines.apa:DecayApa", "mean probability, older windows weighing less"),
    "bayes": BuiltInHead("avbench.baselines.tracking:BayesFilter", "Bayes filter over an offset that may change"),
    "cusum": BuiltInHead("avbench.baselines.tracking:RestartingApa", "APA that starts anew when the offset changes"),
    "trf": BuiltInHead("avbench.baselines.streamsync:StreamingTransformer", "streaming transformer", learned=True),
    "lstm": BuiltInHead("avbench.baselines.streamsync:StreamingLSTM", "streaming LSTM", learned=True),
}


def plain_heads() -> list[str]:
    """The names of the built-in heads that need no weights."""
    return [name for name, head in HEADS.items() if not head.learned]


def is_learned(head: str) -> bool:
    """Whether it is a built-in head that needs weights."""
    return head in HEADS and HEADS[head].learned


def is_outside(head: str) -> bool:
    """Whether a head's name is a user's file or an entry point; a built-in head of the same name comes first."""
    return head not in HEADS and (is_file(head) or head in registered(HEAD))


def head_class(head: str) -> type:
    """The class of a built-in head."""
    module, _, name = HEADS[head].target.partition(":")
    return getattr(import_module(module), name)


def head_label(head: str) -> str:
    """What a result calls a head: a user's file without its folder, which is nobody's business."""
    return Path(head).name if is_file(head) else head


def describe_head(head: str) -> str:
    """In words."""
    return HEADS[head].description if head in HEADS else f"head {head_label(head)}"


def outside_head(head: str) -> Callable[[], StreamingHead]:
    """What makes a head from outside; picklable. ``UsageError`` if a file's class is not named."""
    if is_file(head):
        return partial(load_from_file, *file_and_class(head, HEAD), HEAD)
    return partial(load_entry_point, head, HEAD)


def split_head(name: str, is_backbone: Callable[[str], bool]) -> tuple[str, str]:
    """``"a+apa"`` -> ``("a", "apa")``, ``"a+h.py:H"`` -> ``("a", "h.py:H")``; the head is empty if none is named.

    A "+" may be part of a path: what stands before a head's file must be a backbone's name (``is_backbone``) or a
    backbone's file with its class. ``UsageError`` for an unknown head.
    """
    base, plus, head = name.rpartition("+")
    if not plus:
        return name, ""
    if is_file(name) and (is_file(head) or "/" in head or ":" in head):
        return _split_head_file(name, is_backbone)
    if head not in HEADS and not is_outside(head):
        known = [*HEADS, *sorted(registered(HEAD))]
        close = difflib.get_close_matches(head, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UsageError(
            f"unknown head {head!r} in {name!r}: there are {', '.join(known)} and path/to/file.py:ClassName{hint}"
        )
    return base, head


def _split_head_file(name: str, is_backbone: Callable[[str], bool]) -> tuple[str, str]:
    file, _, class_name = name.rpartition(":")
    if class_name.isidentifier() and Path(file).is_file():  # a backbone's file with a "+" in its path
        return name, ""
    splits = [(name[:i], name[i + 1 :]) for i, sign in enumerate(name) if sign == "+"]
    for base, head in splits:
        file, _, class_name = base.rpartition(":")
        if is_backbone(base) or (file.endswith(".py") and class_name.isidentifier()):
            return base, head
    # no backbone that is known: a mistyped name if there is such a head file, else a backbone's file
    there = [split for split in splits if Path(split[1].rpartition(":")[0]).is_file()]
    return there[0] if there else (name, "")
