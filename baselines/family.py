"""What is known of a model family, in one place. Loads no torch: classes are named ``"module:Class"`` until needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

PROCEDURAL = "procedural"  # the word by which embedded weights say what they were trained on
SYNTHSYNC = f"SynthSync training scenes ({PROCEDURAL})"
DEFAULT_TAG = "synthsync"  # of the embedded weights that a name without a tag means


def class_at(place: str) -> Any:
    """The class that ``"module:Class"`` names; its module is imported."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of a published state dict: how to recognise it, and the full-size model that it belongs to."""

    name: str  # as in published.json and in the card of a converted file
    model: str  # "module:Class"
    # of each group, one of the prefixes begins some key; none of those in ``lacks`` begins any
    has: tuple[tuple[str, ...], ...]
    lacks: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)  # that make the class this very model
    class_rows: str = "transformer.off_head.weight"  # the entry with one row per class
    n_classes: int = 0  # of a model that makes its classes without such an entry
    head: str = ""  # the streaming head in it, as the submodule ``streaming_head``: "trf", "lstm" or ""
    encoders: tuple[str, ...] = ()  # encoder-only: it fills the model's entries with these prefixes and no others
    no_offset: str = ""  # why such a model cannot be run, for a message that begins with its name

    # published key -> the model's own: first ``keeps`` (if any) and ``drops`` say what is left out, then the first
    # prefix of ``renames`` that fits is replaced
    keeps: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    rename_note: str = ""  # what ``renames`` does, in words

    def recognises(self, keys: Iterable[str]) -> bool:
        """Whether a state dict with these keys (without ``module.`` in front) has this layout."""
        names = set(keys)

        def any_begins(prefixes: tuple[str, ...]) -> bool:
            return any(name.startswith(prefixes) for name in names)

        return all(any_begins(group) for group in self.has) and not any_begins(self.lacks)

    def own_key(self, key: str) -> str:
        """The model's own name for a published key (without ``module.`` in front); "" if the entry is left out."""
        if (self.keeps and not key.startswith(self.keeps)) or key.startswith(self.drops):
            return ""
        for old, new in self.renames:
            if key.startswith(old):
                return new + key.removeprefix(old).removeprefix("module.")
        return key

    def new_model(self, **size: Any) -> Any:
        """The full-size model with random weights; ``size`` goes to its class (other sizes serve the tests)."""
        return class_at(self.model)(**self.arguments, **size)


@dataclass(frozen=True, slots=True)
class Family:
    """A backbone's name and everything that depends on it. One file in ``baselines/families/`` describes one or more.

    A family has a small model whose weights ship with the package (``mini`` and ``weights``), a model without weights
    (``mini`` alone), a full-size one (``full``), or both of the first and the last.
    """

    name: str
    kind: str  # "learned" or "classical"
    description: str
    trained_on: str = "nothing"
    mini: str = ""  # "module:Class", constructed without arguments
    weights: Mapping[str, str] = field(default_factory=dict)  # tag -> embedded weight file
    head: str = "none"  # what the bare name means
    heads: Mapping[str, str] = field(default_factory=dict)  # learned head -> the embedded file that holds it
    tagged_heads: Mapping[str, str] = field(default_factory=dict)  # file of another tag -> the learned head in it
    # embedded file with a token map and a head only -> the file with the backbone that they belong to
    on_top_of: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)  # the paper's name -> the head it means
    full: Layout | None = None  # its ``name`` is the family's
    also_published: tuple[Layout, ...] = ()  # relatives that give no offset: encoders alone, other tasks

    @property
    def has_weights(self) -> bool:
        """Whether there are weights to choose: embedded ones, or a full-size model's."""
        return bool(self.weights or self.full)

    @property
    def files(self) -> tuple[str, ...]:
        """Its embedded weight files, each once."""
        return tuple(dict.fromkeys((*self.weights.values(), *self.heads.values())))

    def head_in(self, file: str) -> str:
        """The learned head in one of its embedded files; "" if there is none."""
        return next((head for head, held in self.heads.items() if held == file), self.tagged_heads.get(file, ""))

    def mini_class(self) -> Any:
        """The class of the small model (a ``SnapshotPredictor``)."""
        return class_at(self.mini)

    def full_class(self) -> Any:
        """The class of the full-size model; None if there is none. :meth:`Layout.new_model` makes one."""
        return class_at(self.full.model) if self.full else None
