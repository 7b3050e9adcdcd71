"""An accelerator that is none: the torch device "fake", whose tensors hold tensors of the CPU.

It computes as the CPU does and refuses what a GPU refuses: an operation on tensors of both places (other than a copy, a
number, or an index), and numpy's view of a tensor that was not fetched back. ``install()`` makes it known to torch for
the rest of the process; other processes find it through the entry point that ``for_processes(folder)`` writes.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as tree
from torch.utils import backend_registration

NAME = "fake"
A = torch.ops.aten
MIXED = {  # operations that take tensors of both places, as on a GPU
    *(A._to_copy.default, A.to.dtype_layout, A.to.device, A.to.dtype, A.to.other),
    *(A.copy_.default, A.index.Tensor, A.index_put_.default),
}
MADE = (  # made at their length elsewhere, and not grown in place
    *("arange.default", "arange.start", "arange.start_step", "linspace.default", "full.default", "zeros.default"),
    *("ones.default", "hann_window.default", "hann_window.periodic"),
)
ran: Counter[str] = Counter()  # operations on the device, by name
_kept: list[Any] = []  # libraries act as long as they live


class FakeTensor(torch.Tensor):
    """A tensor that says it lies on the device; ``held`` has its numbers."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> FakeTensor:
        held = held.resolve_conj().resolve_neg()  # torch would look for these marks on the outside
        made: Any = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=f"{NAME}:0",
            requires_grad=False,
        )
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"FakeTensor({self.held!r})"

    def new_tensor(self, data: Any, dtype: Any = None, device: Any = None) -> torch.Tensor:  # type: ignore[override]
        """As ``torch.tensor``, which cannot make tensors of a subclass."""
        return _tensor(data, dtype=dtype or self.dtype, device=device or self.device)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, *args, **(kwargs or {}))

    __torch_function__ = torch._C._disabled_torch_function_impl


def run(func: Any, *args: Any, **kwargs: Any) -> Any:
    """An operation on tensors of which some are of the device, or that makes such."""
    if func is A._has_compatible_shallow_copy_type.default:
        return False
    leaves = tree.tree_leaves((args, kwargs))
    given = [x for x in leaves if isinstance(x, torch.Tensor)]
    fakes = [x for x in given if isinstance(x, FakeTensor)]
    strangers = [x for x in given if not isinstance(x, FakeTensor) and x.ndim]
    if fakes and strangers and func not in MIXED:
        raise RuntimeError(
            f"Expected all tensors to be on one device, but found at least two devices, {NAME}:0 and cpu, in {func}"
        )
    asked = next((x for x in leaves if isinstance(x, torch.device)), None)
    target = args[1] if func is A.to.other else args[0] if func in (A.copy_.default, A.index.Tensor) else None
    stays = any(isinstance(x, FakeTensor) for x in ([target] if target is not None else given))
    here = stays if asked is None else asked.type == NAME
    out = func(*tree.tree_map(_held, args), **tree.tree_map(_held, kwargs))
    if not here:
        # fetched back: numbers of their own
        return tree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, out)
    ran[str(func)] += 1
    back = {id(x.held): x for x in fakes}  # an operation in place gives the tensor that it was given

    def placed(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        if id(x) in back:
            return back[id(x)]
        with torch.inference_mode(all(x.is_inference() for x in fakes) and torch.is_inference_mode_enabled()):
            return FakeTensor(x)  # what is a view of a weight must be of its kind

    return tree.tree_map(placed, out)


def _held(x: Any) -> Any:
    if isinstance(x, torch.device):
        return torch.device("cpu")
    return x.held if isinstance(x, FakeTensor) else x


_torch_tensor = torch.tensor


def _tensor(data: Any, *, dtype: Any = None, device: Any = None, **more: Any) -> torch.Tensor:
    if device is None or torch.device(device).type != NAME:
        return _torch_tensor(data, dtype=dtype, device=device, **more)
    return _torch_tensor(data, dtype=dtype, **more).to(device)


class _Module:
    """``torch.fake``: what torch asks of the module of a device."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def _lazy_init() -> None: ...

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None: ...

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def possible() -> bool:
    """Whether this torch can have a device written in Python (from 2.10 or so)."""
    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


def install() -> None:
    """Make the device known to this process, once."""
    if _kept or not possible():
        return
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    every, some = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    every.fallback(run, "PrivateUse1")
    for name in MADE:
        op, _, overload = name.partition(".")
        some.impl(name.removesuffix(".default"), _maker(getattr(getattr(A, op), overload)), "PrivateUse1")
    torch.tensor = _tensor
    _kept.extend((every, some))


def _maker(op: Any) -> Any:
    def make(*args: Any, **kwargs: Any) -> FakeTensor:
        return FakeTensor(op(*args, **(kwargs | {"device": "cpu"})))

    return make


def for_processes(folder: Path) -> list[str]:
    """Writes into ``folder`` what makes torch itself call ``install`` in every process that imports it, if the folders
    returned are on that process's path."""
    about = folder / "fake_device-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-device\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[torch.backends]\nfake = fake_device:install\n")
    return [str(folder), str(Path(__file__).parent)]


if __name__ == "__main__":
    sys.exit("import it")
