"""Models by name. Entries are lazy: nothing here imports torch, or a user's file, until a model is loaded.

A name is ``backbone+head``; a tag after a dot picks the backbone's weights (``sparsesync.synthsync-pt+apa``). The
paper's names are aliases. A user's model is ``path/to/file.py:ClassName[+head]``, or an entry point of the group
``avbench.models`` whose value is a class or function that returns a ``SnapshotPredictor`` when called.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from avbench.types import AvbenchError, SnapshotPredictor, StreamingHead, UsageError

ENTRY_POINT_GROUP = "avbench.models"
DEFAULT_TAG = "synthsync"
PROCEDURAL = "procedural"  # the word by which embedded weights say what they were trained on


@dataclass(frozen=True, slots=True)
class StreamingModel:
    """A backbone and a head under one name. ``backbone`` and ``head`` are None until :func:`load_model` loads them.

    ``load_backbone`` and ``load_head`` are picklable and take no arguments, so that worker processes can call them;
    a trivial model (which looks at no media) has no ``load_backbone``.
    """

    name: str
    kind: str  # "learned", "classical" or "trivial"
    backbone_name: str
    head_name: str
    load_backbone: Callable[[], SnapshotPredictor] | None
    load_head: Callable[[], StreamingHead] | None
    description: str
    trained_on: str
    backbone: SnapshotPredictor | None = None
    head: StreamingHead | None = None

    @property
    def embedded(self) -> bool:
        """Whether the weights are those shipped with the package."""
        return PROCEDURAL in self.trained_on


@dataclass(frozen=True, slots=True)
class _Backbone:
    """An entry: ``weights`` maps a tag to the embedded weight file's name; ``head`` is what the bare name means."""

    kind: str
    description: str
    trained_on: str
    weights: dict[str, str]
    head: str = "none"


_SYNTHSYNC = f"SynthSync training scenes ({PROCEDURAL})"
_BACKBONES = {
    "streamsync-trf": _Backbone(
        "learned",
        "mini SparseSync-like backbone trained with a streaming transformer",
        _SYNTHSYNC,
        {"synthsync": "streamsync-trf"},
        "trf",
    ),
    "streamsync-lstm": _Backbone(
        "learned",
        "mini SparseSync-like backbone trained with a streaming LSTM",
        _SYNTHSYNC,
        {"synthsync": "streamsync-lstm"},
        "lstm",
    ),
    "sparsesync": _Backbone(
        "learned",
        "mini SparseSync-like backbone: two towers over the whole window",
        _SYNTHSYNC,
        {"synthsync": "sparsesync", "synthsync-pt": "sparsesync-pt"},
    ),
    "synchformer": _Backbone(
        "learned",
        "mini Synchformer-like backbone: towers over 0.64 s segments",
        _SYNTHSYNC,
        {"synthsync": "synchformer"},
    ),
    "xcorr": _Backbone("classical", "motion energy against sound onset strength, no learning", "nothing", {}),
}
_ALIASES = {"apa-sparsesync": "sparsesync+apa", "apa-synchformer": "synchformer+apa"}
# head -> (class in baselines/apa.py, what it does); they work on any backbone, being fed the logits alone
_PLAIN_HEADS = {
    "none": ("NoHead", "the last window alone"),
    "apa": ("Apa", "mean probability of all windows up to now"),
    "apa-sliding": ("SlidingApa", "mean probability of the last windows"),
    "apa-decay": ("DecayApa", "mean probability, older windows weighing less"),
}
_LEARNED_HEADS = {"trf": "streaming transformer", "lstm": "streaming LSTM"}
_TRIVIAL = {
    "constant": 'always "in sync"',
    "prior": "the class prior that the declared offset law implies",
    "uniform": "a random guess per segment and iteration",
    "oracle": "the label itself",
}
HEAD_NAMES = (*_PLAIN_HEADS, *_LEARNED_HEADS)


def list_models(pattern: str = "*") -> list[StreamingModel]:
    """The known models whose name matches ``pattern`` (``*`` and ``?``), not loaded; the paper's names first."""
    names = ["streamsync-trf", "streamsync-lstm", *_ALIASES]
    for backbone, entry in _BACKBONES.items():
        tags = [f"{backbone}.{tag}" for tag in entry.weights if tag != DEFAULT_TAG]
        for variant in (backbone, *tags):
            names += [variant, *(f"{variant}+{head}" for head in _PLAIN_HEADS if head != entry.head)]
    names += [*_TRIVIAL, *sorted(_entry_points())]
    return [resolve(name) for name in dict.fromkeys(names) if fnmatch.fnmatchcase(name, pattern)]


def resolve(name: str) -> StreamingModel:
    """What a name means, without loading anything; ``UsageError`` (with the nearest known names) if nothing."""
    if name in _TRIVIAL:
        return StreamingModel(name, "trivial", name, "none", None, None, _TRIVIAL[name], "nothing")
    base, head = _split_head(name)
    if _is_file(base):
        return _user_model(name, base, head, partial(load_from_file, *_file_and_class(base)))
    known = base if base in _BACKBONES else ""
    backbone, dot, tag = base.partition(".")
    if backbone in _ALIASES:
        if head:
            raise UsageError(f"model {name!r}: {backbone} already is {_ALIASES[backbone]}; leave out '+{head}'")
        backbone, _, head = _ALIASES[backbone].partition("+")
        known = backbone
    if not known and dot and backbone in _BACKBONES:
        known = backbone
    if known:
        return _embedded(name, known, tag if dot else DEFAULT_TAG, head)
    if base in _entry_points():
        return _user_model(name, base, head, partial(load_entry_point, base))
    raise UsageError(f"unknown model {name!r}{_did_you_mean(name)}")


def load_model(
    name: str, weights: str | Path | None = None, device: str = "cpu", dtype: Any | None = None
) -> StreamingModel:
    """The model with backbone and head loaded, in eval mode on ``device`` and, if given, in torch dtype ``dtype``.

    ``weights``: a safetensors file of the same make (as ``avbench train`` writes) in place of the embedded one.
    ``UsageError`` for an unknown name; ``AvbenchError`` if the weights cannot be read.
    """
    model = resolve(name)
    if weights is not None:
        model = _with_weights(model, Path(weights))
    backbone = _moved(model.load_backbone(), device, dtype) if model.load_backbone else None
    head = _moved(model.load_head(), device, dtype) if model.load_head else None
    if backbone is None:
        return model
    if head is not None and head.needs_token and backbone.token_dim is None:
        raise UsageError(f"model {name!r}: head {model.head_name} needs a streaming token and the backbone has none")
    return replace(
        model,
        backbone=backbone,
        head=head,
        description=model.description or backbone.description,
        trained_on=model.trained_on or backbone.trained_on,
    )


def _split_head(name: str) -> tuple[str, str]:
    """``"a+apa"`` -> ``("a", "apa")``; the head is empty if none is named."""
    base, plus, head = name.rpartition("+")
    if not plus or "/" in head or ":" in head:  # a "+" inside a path
        return name, ""
    if head not in HEAD_NAMES:
        close = difflib.get_close_matches(head, HEAD_NAMES, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UsageError(f"unknown head {head!r} in {name!r}: there are {', '.join(HEAD_NAMES)}{hint}")
    return base, head


def _embedded(name: str, backbone: str, tag: str, head: str) -> StreamingModel:
    entry = _BACKBONES[backbone]
    head = head or entry.head
    if entry.weights and tag not in entry.weights:
        raise UsageError(f"{backbone} has no weights {tag!r}: there are {', '.join(entry.weights)}")
    if not entry.weights and tag != DEFAULT_TAG:
        raise UsageError(f"{backbone} has no weights to choose: leave out '.{tag}'")
    if head in _LEARNED_HEADS and head != entry.head:
        raise UsageError(f"no trained {head} head for {backbone}: streamsync-{head} carries its own backbone")
    file = entry.weights.get(tag, "")
    return StreamingModel(
        name=name,
        kind=entry.kind,
        backbone_name=f"{backbone}.{tag}" if entry.weights else backbone,
        head_name=head,
        load_backbone=partial(load_embedded, "backbone", file) if file else load_xcorr,
        load_head=partial(load_embedded, "head", file) if head in _LEARNED_HEADS else partial(load_plain_head, head),
        description=f"{entry.description}; {_PLAIN_HEADS[head][1] if head in _PLAIN_HEADS else _LEARNED_HEADS[head]}",
        trained_on=entry.trained_on,
    )


def _user_model(name: str, base: str, head: str, factory: Callable[[], SnapshotPredictor]) -> StreamingModel:
    if head in _LEARNED_HEADS:
        raise UsageError(f"no trained {head} head for {base}: choose one of {', '.join(_PLAIN_HEADS)}")
    head = head or "none"
    # description and trained_on are the class's own: known once it is loaded
    return StreamingModel(name, "learned", base, head, factory, partial(load_plain_head, head), "", "")


def _with_weights(model: StreamingModel, path: Path) -> StreamingModel:
    if not isinstance(model.load_backbone, partial) or model.load_backbone.func is not load_embedded:
        raise UsageError(f"model {model.name!r} takes no weight file")
    file = model.load_backbone.args[1]
    learned = model.head_name in _LEARNED_HEADS
    return replace(
        model,
        load_backbone=partial(load_embedded, "backbone", file, path),
        load_head=partial(load_embedded, "head", file, path) if learned else model.load_head,
        trained_on=f"undeclared ({path.name})",
    )


def _moved(module: Any, device: str, dtype: Any | None) -> Any:
    """The module in eval mode where it should be; what is no torch module stays as it is."""
    if hasattr(module, "eval") and hasattr(module, "to"):
        return module.eval().to(device=device, dtype=dtype)
    return module


# -- factories: module-level, so that partials of them can be pickled for worker processes -----------------------------


def load_embedded(part: str, file: str, path: Path | None = None) -> Any:
    """The backbone or head of an embedded weight file, or of ``path`` in its place."""
    mini = import_module("avbench.baselines.mini")
    try:
        return getattr(mini, f"load_{part}")(file, path)
    except (FileNotFoundError, IsADirectoryError) as error:
        what = f"weight file {path} does not exist" if path else f"this installation lacks the embedded weights {file}"
        raise AvbenchError(f"{what}; `avbench train {file}` makes them") from error
    except Exception as error:  # safetensors and torch have no exception of their own in common
        raise AvbenchError(f"weights {path or file} cannot be used: {_first_line(error)}") from error


def load_xcorr() -> SnapshotPredictor:
    return import_module("avbench.baselines.xcorr").Xcorr()


def load_plain_head(name: str) -> StreamingHead:
    return getattr(import_module("avbench.baselines.apa"), _PLAIN_HEADS[name][0])()


def load_from_file(path: str, class_name: str) -> SnapshotPredictor:
    """An instance of a class in a user's Python file, which is run: only name files you trust."""
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"model file {path} does not exist")
    # the module's name does not hold the path, so that a model has the same fingerprint wherever it lies
    module_name = f"avbench_user_{file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"model file {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script that parses arguments or leaves at its end is no model file
        del sys.modules[module_name]
        raise UsageError(f"model file {path} does not run: {_first_line(error)}") from error
    return _instance(getattr(module, class_name, None), f"{path}:{class_name}", _classes(module))


def load_entry_point(name: str) -> SnapshotPredictor:
    entry = _entry_points()[name]
    try:
        factory = entry.load()
    except Exception as error:
        where = f"model {name} (entry point {entry.value})"
        raise UsageError(f"{where} cannot be imported: {_first_line(error)}") from error
    return _instance(factory, f"{name} (entry point {entry.value})", [])


def _instance(factory: Any, where: str, others: list[str]) -> SnapshotPredictor:
    if factory is None:
        there = f"; the file defines {', '.join(others)}" if others else ""
        raise UsageError(f"{where}: there is no such class{there}")
    try:
        predictor = factory()
    except (Exception, SystemExit) as error:
        raise UsageError(f"{where} cannot be constructed without arguments: {_first_line(error)}") from error
    if not isinstance(predictor, SnapshotPredictor):
        raise UsageError(f"{where} is not a SnapshotPredictor; subclass avbench.SnapshotPredictor")
    return _moved(predictor, "cpu", None)


def _classes(module: Any) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, SnapshotPredictor) and value.__module__ == module.__name__
    ]


def _is_file(base: str) -> bool:
    return ".py:" in base or base.endswith(".py")


def _file_and_class(base: str) -> tuple[str, str]:
    path, colon, class_name = base.rpartition(":")
    if not colon or not class_name.isidentifier():
        raise UsageError(f"model {base!r}: name the class too, as in path/to/file.py:ClassName")
    return path, class_name


def _entry_points() -> dict[str, Any]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def _did_you_mean(name: str) -> str:
    known = [*_BACKBONES, *_ALIASES, *_TRIVIAL, *_entry_points()]
    base = name.partition("+")[0]
    close = difflib.get_close_matches(base, known, n=2, cutoff=0.55)
    return f"; did you mean {' or '.join(close)}?" if close else "; `avbench models` lists those there are"


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
