"""Classes from outside the package, backbones and heads alike: from a user's Python file, or from an entry point."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import entry_points
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

from avbench.engine.fingerprint import ARGUMENTS, FILES, USERS_FILE
from avbench.engine.sources import imported, local_sources
from avbench.registry import arguments as args
from avbench.system.debug import with_users_line
from avbench.system.spelling import nearest
from avbench.types import AvbenchError, SnapshotPredictor, StreamingHead, UsageError, in_one_line, printable


class Kind(NamedTuple):
    """What a class from outside may be: its base class, the word for it, and its entry point group."""

    base: type
    word: str
    group: str


MODEL = Kind(SnapshotPredictor, "model", "avbench.models")
HEAD = Kind(StreamingHead, "head", "avbench.heads")

_LOADERS = ("torch.serialization", "safetensors")  # modules that load checkpoints

_packages: set[str] = set()  # the first names of those that users' files are members of
_helpers: dict[str, Path] = {}  # module -> its file, of all that users' files imported from beside them


def registered(kind: Kind) -> dict[str, Any]:
    """Name -> entry point, of those that installed packages register in the kind's group."""
    return {entry.name: entry for entry in entry_points(group=kind.group)}


def is_file(name: str) -> bool:
    """Whether a name is ``path/to/file.py:ClassName`` (or lacks only the class)."""
    return ".py:" in name or name.endswith(".py")


def file_and_class(name: str, kind: Kind = MODEL) -> tuple[str, str]:
    """``"a/net.py:Net"`` -> ``("a/net.py", "Net")``; ``UsageError`` if no class is named."""
    path, colon, class_name = name.rpartition(":")
    if not colon or not class_name.isidentifier():
        raise UsageError(f"{kind.word} {name!r}: name the class too, as in path/to/file.py:ClassName")
    return path, class_name


# -- factories: module-level, so that partials of them can be pickled for worker processes -----------------------------


def check_file(path: str, class_name: str, kind: Kind = MODEL, *, arguments: Mapping[str, Any] | None = None) -> None:
    """Whether :func:`load_from_file` may succeed, as far as it is known without making an instance: errors as there."""
    where = f"{path}:{class_name}"
    with _running(path, kind) as module:
        factory = _named_in(module, class_name, where)
    if isinstance(factory, type) and not issubclass(factory, kind.base):
        raise _another_kind(where, kind, factory)
    if callable(factory) and arguments is not None:
        args.typed(factory, arguments, where)


def load_from_file(
    path: str, class_name: str, kind: Kind = MODEL, *, arguments: Mapping[str, Any] | None = None
) -> Any:
    """An instance of a class (or what a function returns) in a user's Python file, in eval mode.

    ``arguments``: for its constructor, see :func:`avbench.registry.arguments.typed`. The file is run: only name files
    you trust. Its own folder can be imported from meanwhile; a file that imports from its package is a member of it,
    and the package can be imported from, too. ``UsageError``: the file is not there or does not run, has no such class,
    or the class is not of this kind or wants other arguments.
    """
    where = f"{path}:{class_name}"
    with _running(path, kind) as module:
        return _instance(_named_in(module, class_name, where), where, kind, arguments or {})


def _named_in(module: Any, class_name: str, where: str) -> Any:
    """What a user's module calls ``class_name``."""
    factory = getattr(module, class_name, None)
    if factory is None:
        others = _classes(module)
        there = f"; the file defines {', '.join(others)}" if others else ""
        raise UsageError(f"{where}: there is no such class{there}")
    return factory


def load_entry_point(name: str, kind: Kind = MODEL, *, arguments: Mapping[str, Any] | None = None) -> Any:
    """An instance of the class (or what the function returns) that a package registers as ``name``, in eval mode;
    ``arguments`` as in :func:`load_from_file`."""
    entry = registered(kind)[name]
    try:
        factory = entry.load()
    except Exception as error:
        where = f"{kind.word} {name} (entry point {entry.value})"
        raise UsageError(f"{where} cannot be imported: {in_one_line(error)}") from error
    return _instance(factory, f"{name} (entry point {entry.value})", kind, arguments or {})


def load_made(factory: Any, name: str, *, arguments: Mapping[str, Any] | None = None) -> Any:
    """The backbone that a class or function from Python makes, in eval mode; ``arguments`` as in
    :func:`load_from_file`."""
    return _instance(factory, name, MODEL, arguments or {})


def kind_of(path: str, class_name: str) -> Kind:
    """Whether a file's class is a backbone or a head, by its base class; the file is run. MODEL if it is neither."""
    with _running(path, MODEL) as module:
        thing = getattr(module, class_name, None)
        if not isinstance(thing, type) and callable(thing):
            with suppress(Exception, SystemExit):  # said when it is loaded
                thing = type(thing())
    return HEAD if isinstance(thing, type) and issubclass(thing, StreamingHead) else MODEL


@contextmanager
def _running(path: str, kind: Kind) -> Iterator[Any]:
    """The file's module, run; within it, what the file imports from can be imported from.

    A file is a script, which can import from its own folder alone, unless it names a package that it lies in, or fails
    as a script at a relative import. Neither depends on what this process has imported: a fingerprint must not.
    """
    file = Path(path)
    with ExitStack() as stack:
        stack.enter_context(_importable(file.parent))
        root = _root_by_name(file)
        try:
            module = _run(file, path, kind) if root is None else None
        except UsageError as error:
            if "attempted relative import" not in str(error.__cause__) or not file.resolve().parent.name:
                raise
            root = _root_of_package(file)
        if root is not None:
            stack.enter_context(_importable(root))
            module = _run(file, path, kind, root)
        yield module


def _run(file: Path, path: str, kind: Kind, root: Path | None = None) -> Any:
    """The file's module, run: as a script or, if there is a ``root``, as a member of the package that its folder is,
    seen from there."""
    if not file.is_file():
        raise UsageError(f"{kind.word} file {path} does not exist{_beside(file)}")
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"{kind.word} file {path} cannot be read: {in_one_line(error)}") from error
    # Without the path, so that a model has the same fingerprint wherever it is stored; with the content, so that
    # another folder's file of the same name is another module: a fingerprint finds a class's source by its module.
    module_name = f"{USERS_FILE}{file.stem}_{digest[:12]}"
    helpers = _helpers_of(file)
    if root is not None:
        file = file.parent.resolve() / file.name
        helpers |= _helpers_of(file, root)
        module_name = f"{_module_name(file.parent / '__init__.py', root)}.{module_name}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{kind.word} file {path} is not a Python file")
    _refuse_namesakes(helpers)
    module = importlib.util.module_from_spec(spec)
    try:
        if root is not None:
            _import_package(file.parent, spec.parent or "")
        sys.modules[module_name] = module
        spec.loader.exec_module(module)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # a script that parses arguments or leaves at its end is no model file
        sys.modules.pop(module_name, None)
        why = f"{with_users_line(error)}{_meant(error, file)}"
        raise UsageError(f"{kind.word} file {path} does not run: {why}") from error
    _helpers.update({name: own for name, own in helpers.items() if _file_of(sys.modules.get(name)) == own})
    return module


def _beside(file: Path) -> str:
    """What to say of a file that is not there: another of its folder with a name like it, if there is one."""
    near = nearest(file.name, (path.name for path in sorted(file.parent.glob("*.py"))), otherwise="")
    return f"; {printable(near)}" if near else ""


def _meant(error: BaseException, file: Path) -> str:
    """What to say of a module that is not found: one beside the file with a name like it, or where it is sought."""
    if not isinstance(error, ModuleNotFoundError) or not error.name or "." in error.name:
        return ""
    others = (path.stem for path in sorted(file.parent.glob("*.py")) if path != file)
    return f"; {printable(nearest(error.name, others, otherwise='it is neither installed nor beside the file'))}"


def _instance(factory: Any, where: str, kind: Kind, arguments: Mapping[str, Any]) -> Any:
    if not callable(factory) or (hasattr(factory, "state_dict") and not isinstance(factory, type)):  # made already
        raise UsageError(f"{where} is not a {kind.base.__name__}; name a class, or a function that returns one")
    given = args.typed(factory, arguments, where)
    try:
        made = factory(**given)
    except (Exception, SystemExit) as error:
        how = f"with {', '.join(given)}" if given else "without arguments"
        why = f"{_no_checkpoint(given, error)}{with_users_line(error)}"
        takes = args.takes(factory)
        raise UsageError(f"{where} cannot be constructed {how}: {why}{f'; {takes}' if takes else ''}") from error
    if not isinstance(made, kind.base):
        what = "None" if made is None else f"a {type(made).__name__}"
        called = where if isinstance(factory, type) else f"{where} returned {what}, which"
        raise _another_kind(called, kind, type(made))
    if given:  # a class need not keep them: its snapshots are those of these arguments alone
        object.__setattr__(made, ARGUMENTS, args.counted(given))
        object.__setattr__(made, FILES, args.files_among(given))
    # torch's eval() switches dropout off; what is no torch module stays as it is
    return made.eval() if hasattr(made, "eval") and hasattr(made, "to") else made


def _another_kind(where: str, kind: Kind, found: type) -> UsageError:
    """What to say of a class that is not of the kind."""
    base, hint = kind.base.__name__, ""
    if issubclass(found, StreamingHead):
        hint = "; it is a head: name it after a backbone, as in xcorr+path/to/file.py:ClassName"
    elif issubclass(found, SnapshotPredictor):
        hint = "; it is a backbone: name it before the +"
    return UsageError(f"{where} is not a {base}{hint or f'; {how_to_subclass(kind, found)}'}")


def how_to_subclass(kind: Kind, found: type | None = None) -> str:
    """What to do about a class, ``found``, that is no subclass of the kind's base."""
    users = found is not None and found.__module__.partition(".")[0] not in ("builtins", "torch")
    name = found.__name__ if found is not None and users else "Net"
    if kind is HEAD:
        return f"subclass it, as in class {name}(avbench.{kind.base.__name__})"
    return f"subclass it, as in class {name}(avbench.{kind.base.__name__}, torch.nn.Module)"


def _no_checkpoint(given: Mapping[str, Any], error: BaseException) -> str:
    """What to say of files among the arguments that are no checkpoint, if loading one failed; "" otherwise."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not any(module.startswith(_LOADERS) for module in modules) and not isinstance(error, UnpicklingError):
        return ""
    files = [printable(name) for path, name in args.files_among(given).items() if not _begins_as_weights(Path(path))]
    return f"{' and '.join(files)} among the arguments is probably no checkpoint: " if files else ""


def _begins_as_weights(path: Path) -> bool:
    from avbench.weights.cache import safetensors_keys

    with suppress(OSError), open(path, "rb") as file:
        if file.read(1) == b"\x80":  # a pickle, which torch may load
            return True
    try:
        safetensors_keys(path)
    except AvbenchError:
        return False
    return True


def _classes(module: Any) -> list[str]:
    """The names of the backbones and heads that a file defines."""
    bases = (SnapshotPredictor, StreamingHead)
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, bases) and value.__module__ == module.__name__
    ]


# -- what a user's file imports from beside it -------------------------------------------------------------------------


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Within it, ``folder`` can be imported from; the standard library and installed packages come first."""
    entry = str(folder.resolve())
    added = entry not in sys.path
    if added:
        sys.path.append(entry)
        importlib.invalidate_caches()  # the folder may have been written to since it was last read
    try:
        yield
    finally:
        if added:
            with suppress(ValueError):  # the file may have taken it away
                sys.path.remove(entry)


def _root_by_name(file: Path) -> Path | None:
    """The folder above the package that a file, or what it imports from beside it, names and lies in; None if it names
    none, or one that is beside it, too, or that is installed elsewhere."""
    folder = file.parent.resolve()
    try:
        sources = local_sources(folder / file.name, folder)
    except OSError:  # said when it is run
        return None
    for name in sorted(set().union(*map(imported, sources.values()))):
        package = next((place for place in (folder, *folder.parents) if place.name == name), None)
        if package is not None and not _module_in(folder, name) and not _is_elsewhere(name, package):
            return package.parent
    return None


def _is_elsewhere(name: str, package: Path) -> bool:
    """Whether Python finds another package of this name that no user's file has brought."""
    if name in _packages:
        return False
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return True
    return spec is not None and package not in [
        Path(place).resolve() for place in spec.submodule_search_locations or ()
    ]


def _root_of_package(file: Path) -> Path:
    """The folder above the topmost package that a file lies in; its own folder is one, with or without
    ``__init__.py``. ``UsageError`` if a folder's name can be none of a package."""
    folder = file.parent.resolve()
    root = folder.parent
    while (root / "__init__.py").is_file() and root != root.parent:
        root = root.parent
    if any("." in part for part in folder.relative_to(root).parts):
        raise UsageError(f"{file} imports from its package, but {folder} cannot be one: rename it, without a dot")
    return root


def _module_in(folder: Path, name: str) -> bool:
    return (folder / name).is_dir() or (folder / f"{name}.py").is_file()


def _import_package(folder: Path, name: str) -> None:
    """Imports the package; ``UsageError`` if Python knows another one of this name."""
    package = importlib.import_module(name)
    _packages.add(name.partition(".")[0])
    if folder not in [Path(place).resolve() for place in getattr(package, "__path__", ())]:
        other = getattr(package, "__file__", None) or "Python itself"
        raise UsageError(f"the package {name} in {folder} is hidden by another one ({other}): rename its folder")


def _helpers_of(file: Path, folder: Path | None = None) -> dict[str, Path]:
    """Module -> file, of what the file imports from ``folder`` (its own), itself excepted."""
    file = file.parent.resolve() / file.name
    folder = folder or file.parent
    files = (folder / path for path in local_sources(file, folder))
    return {_module_name(found, folder): found for found in files if found != file}


def _module_name(file: Path, folder: Path) -> str:
    parts = file.relative_to(folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _refuse_namesakes(helpers: dict[str, Path]) -> None:
    """Python keeps one module of a name: the second folder's would silently be the first one's."""
    for name, own in helpers.items():
        other = _helpers.get(name, own)
        if other != own and _file_of(sys.modules.get(name)) == other and own.read_bytes() != other.read_bytes():
            raise UsageError(
                f"two folders contain a different {own.name} ({other.parent} and {own.parent}): rename one"
            )


def _file_of(module: Any) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None
