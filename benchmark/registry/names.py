"""Models by name. Entries are lazy: nothing here imports torch, or a user's file, until a model is loaded.

A name is ``backbone+head``; a tag after a dot picks the backbone's weights: embedded ones of the mini models
(``sparsesync.synthsync-pt+apa``), or converted published ones in the cache (``sparsesync.vggsound``): they belong to
the full-size model of the family. The paper's names are aliases. A user's model is
``path/to/file.py:ClassName[+head]``, or an entry point of the group ``avbench.models`` whose value is a class or
function that returns a ``SnapshotPredictor`` when called. A head may come from outside too, in the same two ways:
``xcorr+path/to/file.py:ClassName`` (:mod:`avbench.registry.heads`). What a request adds to a name (weight files, random
weights, precision) is a :class:`ModelOptions`.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from avbench.baselines.families import families, layout_with_head
from avbench.baselines.family import DEFAULT_TAG, Family
from avbench.baselines.trivial import TRIVIAL
from avbench.registry.heads import describe_head, head_label, is_outside, outside_head, plain_heads, split_head
from avbench.registry.loading import (
    load,
    load_embedded,
    load_full,
    load_full_head,
    load_head_file,
    load_plain_head,
    load_random_head,
    load_tuned,
    load_without_weights,
)
from avbench.registry.options import ModelOptions, StreamingModel
from avbench.registry.user_files import (
    HEAD,
    MODEL,
    check_file,
    file_and_class,
    how_to_subclass,
    is_file,
    load_entry_point,
    load_from_file,
    load_made,
    registered,
)
from avbench.system.devices import check_device
from avbench.system.workers import can_be_sent
from avbench.types import AvbenchError, SnapshotPredictor, StreamingHead, UsageError


def list_models(pattern: str = "*") -> list[StreamingModel]:
    """The known models whose name matches ``pattern`` (``*`` and ``?``), not loaded; the paper's names first, converted
    full-size weights that lie in the cache with their family."""
    from avbench.weights.cache import converted_tags

    known = families()
    # the paper's names first: streaming models by their own name, then its names for APA on a backbone
    names = [name for name, family in known.items() if family.head != "none"]
    names += _aliases()
    for backbone, family in known.items():
        tags = [f"{backbone}.{tag}" for tag in family.weights if tag != DEFAULT_TAG]
        tags += [f"{backbone}.{tag}" for tag in (converted_tags(backbone) if family.full else [])]
        names += [f"{backbone}+{head}" for head in family.heads if head != family.head]
        for variant in (backbone, *tags):
            names += [variant, *(f"{variant}+{head}" for head in plain_heads() if head != family.head)]
    names += [*TRIVIAL, *sorted(registered(MODEL))]
    matching = dict.fromkeys(name for name in names if fnmatch.fnmatchcase(name, pattern))
    return [model for name in matching if (model := _resolved(name)) is not None]


def _aliases() -> dict[str, tuple[str, str]]:
    """The paper's name for a backbone with a head -> both."""
    return {alias: (family.name, head) for family in families().values() for alias, head in family.aliases.items()}


def _resolved(name: str) -> StreamingModel | None:
    """None for cached weights that cannot be run (3 classes, encoder-only)."""
    try:
        return resolve(name)
    except AvbenchError:
        return None


def resolve(name: str, options: ModelOptions | None = None) -> StreamingModel:
    """What a name means, without loading anything; ``UsageError`` (with the nearest known names) if nothing, or if the
    options do not go with it; ``AvbenchError`` for a weight file that is not there or is of another kind."""
    options = options or ModelOptions()
    if name in TRIVIAL:
        if options.changes_anything:
            options_said = "--weights, --dtype, --compile and --model-args"
            raise UsageError(f"model {name!r} ignores its input; {options_said} do not apply")
        return StreamingModel(name, "trivial", name, "none", None, None, TRIVIAL[name].description, "nothing")
    base, head = split_model_name(name)
    if is_file(base):
        return _user_model(name, base, head, partial(load_from_file, *file_and_class(base), **_given(options)), options)
    known, aliases = families(), _aliases()
    backbone, _, tag = base.partition(".")
    if backbone in aliases:
        meant = "+".join(aliases[backbone])
        if head:
            raise UsageError(f"model {name!r}: {backbone} already is {meant}; leave out '+{head}'")
        backbone, head = aliases[backbone]
    if backbone in known:
        return _known(name, known[backbone], tag, head, options)
    if base in registered(MODEL):
        return _user_model(name, base, head, partial(load_entry_point, base, **_given(options)), options)
    raise UsageError(f"unknown model {name!r}{_did_you_mean(name)}")


def resolve_object(model: Any, head: str = "", options: ModelOptions | None = None) -> StreamingModel:
    """A model given in Python: a ``SnapshotPredictor``, or a class or function that makes one; ``python:NAME+head`` is
    its name.

    Worker processes make their own with the function. An object is computed in this process alone; so is what a
    function makes that cannot be pickled, or that is defined in a notebook. It is put into eval mode. ``UsageError``
    for what is neither, an unknown head, or options that do not go with it.
    """
    options = options or ModelOptions()
    there = isinstance(model, SnapshotPredictor)
    called = getattr(getattr(model, "func", model), "__qualname__", "") or type(model).__qualname__
    called = called.rpartition(".")[2].strip("<>")  # of a lambda, "lambda"
    if not there and (not callable(model) or (hasattr(model, "state_dict") and not isinstance(model, type))):
        raise UsageError(
            f"{called} is not a SnapshotPredictor: {how_to_subclass(MODEL, type(model))}, or pass a function that "
            "returns one"
        )
    if there and options.model_args:
        raise UsageError(f"{called} is made already: model_args go with a class or a function that makes the model")
    base = f"python:{called}"
    head = split_model_name(f"xcorr+{head}")[1] if head else ""  # refuses an unknown one
    name = f"{base}+{head}" if head else base
    factory = partial(load_made, (lambda: model) if there else model, base, **_given(options))
    found = _user_model(name, base, head, factory, options)
    assert found.load_backbone is not None
    in_notebook = getattr(model, "__module__", "") == "__main__" and not hasattr(sys.modules["__main__"], "__file__")
    if not there and not in_notebook and can_be_sent(found.load_backbone):
        return found
    return replace(found, backbone=found.load_backbone(), load_backbone=None)


def load_model(  # noqa: PLR0913  (all that a name may be given, by keyword)
    name: str,
    weights: str | Path | Mapping[str, Any] | None = None,
    device: str = "cpu",
    dtype: Any | None = None,
    *,
    head_weights: str | Path | None = None,
    random_weights: int | None = None,
    autocast: str = "float32",
    compile: bool = False,
    model_args: Mapping[str, Any] | None = None,
) -> StreamingModel:
    """The model with backbone and head loaded, in eval mode on ``device``, its weights in torch ``dtype`` (None: as
    they are, float32).

    ``weights`` in place of the embedded ones: a file that ``avbench train`` wrote, or, for the full-size model of the
    family, a converted safetensors file, a published ``.pt`` file or a state dict in published keys. The other
    arguments are those of :class:`ModelOptions`. ``UsageError`` for an unknown name, options that do not go with it or
    a device that is not there; ``AvbenchError`` if weights are missing, of another model, or damaged.
    """
    options = ModelOptions(
        weights=Path(weights) if isinstance(weights, str) else weights,
        head_weights=Path(head_weights) if head_weights is not None else None,
        random_seed=random_weights,
        autocast=autocast,
        compiled=compile,
        model_args=model_args or {},
    )
    return load(resolve(name, options), check_device(device), dtype)


def split_model_name(name: str) -> tuple[str, str]:
    """Backbone and head of a model's name; the head is empty if none is named. ``UsageError`` for an unknown head."""
    return split_head(name, _is_backbone)


def check_files(name: str, options: ModelOptions | None = None) -> None:
    """Runs the user's files that a model's name holds; ``UsageError`` if one does not run, has no such class, or one
    that cannot be used with these options."""
    base, head = split_model_name(name)
    if is_file(base):
        check_file(*file_and_class(base), arguments=(options or ModelOptions()).model_args)
    if is_file(head):
        check_file(*file_and_class(head, HEAD), HEAD)


def backbone_alone(name: str) -> str:
    """``name``, which must be a backbone's on which a head is trained; ``UsageError`` if it has a head already."""
    backbone, head = split_model_name(name)
    alias = _aliases().get(backbone.partition(".")[0])
    if head or alias:
        alone = backbone if head else ".".join([alias[0], *backbone.split(".")[1:]])  # type: ignore[index]
        what = head or alias[1]  # type: ignore[index]
        raise UsageError(f"{name}: a head is trained on a backbone alone, and this has the head {what}: name {alone}")
    return backbone


def without_folders(name: str) -> str:
    """A model's name with users' files named without their folders: paths are nobody's business."""
    try:
        parts = split_model_name(name)
    except UsageError:  # a head that is not installed here
        parts = (name, "")
    return "+".join(re.sub(r"^.*[/\\]", "", part) for part in parts if part)


def only_learned(name: str, options: ModelOptions) -> ModelOptions | None:
    """``options`` for a model with trained weights; None for one that has none, to which they do not apply."""
    return None if name in TRIVIAL or name.partition("+")[0] == "xcorr" else options


def takes_arguments(name: str) -> bool:
    """Whether a model's name has a class from outside the package in it, which may be given arguments."""
    base, head = split_model_name(name)
    return is_file(base) or base in registered(MODEL) or is_outside(head)


def _given(options: ModelOptions) -> dict[str, Any]:
    """What the factory of a user's class is called with, beside its place; nothing where there are no arguments."""
    return {"arguments": dict(options.model_args)} if options.model_args else {}


def _is_backbone(base: str) -> bool:
    family = base.partition(".")[0]
    return base in TRIVIAL or family in families() or family in _aliases() or base in registered(MODEL)


def _known(name: str, family: Family, tag: str, head: str, options: ModelOptions) -> StreamingModel:
    """A model of a family. The backbone's weights come from the options, from the cache (full size) or from the
    package (mini); a learned head's from its own file, from the backbone's, or from nowhere (random)."""
    backbone, head = family.name, head or family.head
    if not family.has_weights and tag:
        raise UsageError(f"{backbone} has no weights to choose: leave out '.{tag}'")
    if not family.has_weights and options.weights is not None:
        raise UsageError(f"model {name!r} takes no weight file")
    source, kind = _source(name, family, tag, options)
    file = ""  # the package's weight file, if the weights are its own
    what = f"{family.description}; {describe_head(head)}"
    model = StreamingModel(
        name, family.kind, backbone, head_label(head), None, None, what, family.trained_on, options=options
    )
    if kind == "full":
        factory: Callable[[], SnapshotPredictor] = partial(load_full, backbone, source)
        whose = tag or (
            f"random-{source}" if isinstance(source, int) else getattr(source, "name", "state-dict")  # of a path
        )
        # description and trained_on are the loaded model's own
        model = replace(model, backbone_name=f"{backbone}.{whose}", description="", trained_on="", full_size=True)
    elif kind == "mini":
        if options.autocast != "float32":
            raise UsageError(f"model {name!r} is a mini model, computed in float32; --dtype is for full-size ones")
        tag = tag or DEFAULT_TAG
        file = (family.heads.get(head) if not source and tag == DEFAULT_TAG else None) or family.weights[tag]
        factory = partial(load_embedded, "backbone", file, source)
        whose = source.name if source else tag if file == family.weights[tag] else file
        model = replace(model, backbone_name=f"{backbone}.{whose}")
        if source:
            model = replace(model, trained_on=f"undeclared ({source.name})")
    else:
        factory = partial(load_without_weights, family)
    own_head = _own_head(family, head, kind, file if source is None else source)
    load_head, random_head = _head(name, backbone, head, options, own_head)
    if options.model_args:
        if not is_outside(head):
            raise UsageError(f"model {name!r} takes no arguments: --model-args goes with a class of your own")
        load_head = partial(load_head, **_given(options))
    random = isinstance(source, int) or random_head
    if options.random_seed is not None and not random:
        raise UsageError(f"model {name!r}: all weights come from files; remove --random-weights")
    return replace(
        model,
        load_backbone=_computed(factory, options),
        load_head=load_head,
        random_seed=options.random_seed if random else None,
    )


def _source(name: str, family: Family, tag: str, options: ModelOptions) -> tuple[Any, str]:
    """Where the backbone's weights are (a path, a state dict, a seed, or None for the package's) and what they are:
    "full", "mini", or "" for a backbone that has none. ``UsageError`` if the family has no such model."""
    source, kind = _named_source(name, family, tag, options)
    if kind == "full" and not family.full:
        raise UsageError(f"model {name!r}: the weights are of a full-size model, and {family.name} has none")
    if kind == "mini" and not family.weights:
        what = "no weights ship with the package" if source is None else "the weights are of a mini model, it has none"
        raise UsageError(f"model {name!r}: {what}; name full-size ones with --weights FILE")
    return source, kind


def _named_source(name: str, family: Family, tag: str, options: ModelOptions) -> tuple[Any, str]:
    from avbench.weights.cache import advice, converted, converted_tags, file_kind
    from avbench.weights.published import published_entry

    if not family.has_weights:
        return None, ""
    if options.weights is not None:
        if tag:
            raise UsageError(f"model {name!r} names its weights (.{tag}): leave that or --weights out")
        if isinstance(options.weights, Mapping):
            return options.weights, "full"
        path = Path(options.weights)
        kind = file_kind(path)
        if kind == "head":
            raise UsageError(f"{path} contains a head only: name it with --head-weights")
        return path, kind
    if tag in family.weights:
        return None, "mini"
    if tag:
        published = published_entry(f"{family.name}.{tag}")
        problem = advice(published) if published else ""
        if problem:
            raise UsageError(problem)
        path = converted(f"{family.name}.{tag}")
        if not path.is_file():
            there = [*family.weights, *converted_tags(family.name)]
            raise UsageError(
                f"{family.name} has no weights {tag!r}: there are {', '.join(there)}; `avbench weights list` shows the "
                "published ones"
            )
        return path, "full"
    if options.random_seed is not None and family.full:
        return options.random_seed, "full"
    return None, "mini"


def _own_head(family: Family, head: str, kind: str, source: Any) -> Callable[[], StreamingHead] | None:
    """The function that makes the learned head that comes with the backbone's weights; None if none does. ``source``:
    of those weights, a path or the name of a file of the package's for a mini model."""
    from avbench.weights.cache import safetensors_keys

    if kind == "full":
        return partial(load_full_head, family.name, source) if family.full and family.full.head == head else None
    if isinstance(source, Path):
        has_one = any(key.startswith("head.") for key in safetensors_keys(source) or [])
        return partial(load_head_file, source, head, True) if has_one else None
    return partial(load_embedded, "head", source) if source and family.head_in(source) == head else None


def _head(
    name: str, backbone: str, head: str, options: ModelOptions, own: Callable[[], StreamingHead] | None = None
) -> tuple[Callable[[], StreamingHead], bool]:
    """The function that makes a head, and whether its weights are random though the backbone's are not. ``own``: makes
    the one that comes with the backbone."""
    if is_outside(head):
        if options.head_weights is not None:
            raise UsageError(f"model {name!r}: its head loads its own weights; --head-weights goes with +trf or +lstm")
        return outside_head(head), False
    if head in plain_heads():
        if options.head_weights is not None:
            raise UsageError(f"model {name!r}: head {head} has no weights; --head-weights goes with +trf or +lstm")
        return partial(load_plain_head, head), False
    if options.head_weights is not None:
        _check_head_file(options.head_weights)
        return partial(load_head_file, options.head_weights, head), False
    if own:
        return own, False
    if options.random_seed is not None:
        return partial(load_random_head, head, options.random_seed), True
    carrier = layout_with_head(head)
    embedded = f"; {carrier.name} carries its own backbone" if carrier else ""
    made = f"`avbench train head --head {head} --backbone {backbone}` makes one"
    raise UsageError(
        f"no trained {head} head for {backbone}: name one with --head-weights FILE ({made}), or choose one of "
        f"{', '.join(plain_heads())}{embedded}"
    )


def _check_head_file(path: Path) -> None:
    from avbench.weights.cache import file_kind

    try:
        kind = file_kind(path)
    except AvbenchError as error:
        raise UsageError(f"--head-weights: {error}") from error
    if kind == "mini":
        raise UsageError(
            f"--head-weights: {path.name} contains more than a head, and the head reads tokens that the rest makes: "
            "name it with --weights"
        )


def _user_model(
    name: str, base: str, head: str, factory: Callable[[], SnapshotPredictor], options: ModelOptions
) -> StreamingModel:
    head = head or "none"
    if options.weights is not None:
        raise UsageError(f"model {name!r} takes no weight file: its class loads its own weights")
    load_head, random = _head(name, base, head, options)
    if options.random_seed is not None and not random:
        raise UsageError(f"model {name!r} loads its own weights; remove --random-weights")
    # description and trained_on are the class's own: known once it is loaded
    return StreamingModel(
        name,
        "learned",
        base,
        head_label(head),
        _computed(factory, options),
        load_head,
        "",
        "",
        options=options,
        random_seed=options.random_seed if random else None,
    )


def _computed(factory: Callable[[], SnapshotPredictor], options: ModelOptions) -> Callable[[], SnapshotPredictor]:
    """The factory, computing as the options say."""
    if options.autocast == "float32" and not options.compiled and not _has_copy(factory, options):
        return factory
    return partial(load_tuned, factory, options.made_for, options.autocast, options.compiled)


def _has_copy(factory: Callable[[], SnapshotPredictor], options: ModelOptions) -> bool:
    return bool(options.made_for) and isinstance(factory, partial) and factory.func is load_full


def _did_you_mean(name: str) -> str:
    known = [*families(), *_aliases(), *TRIVIAL, *registered(MODEL)]
    base = name.partition("+")[0]
    close = difflib.get_close_matches(base, known, n=2, cutoff=0.55)
    return f"; did you mean {' or '.join(close)}?" if close else "; `avbench models` lists those there are"
