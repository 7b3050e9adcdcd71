"""Where torch can compute: what a ``--device`` means, whether it is here, and which is the best."""

from __future__ import annotations

from avbench.system.in_python import in_python
from avbench.types import UsageError, first_line

AUTO = "auto"
CPU = "cpu"


def device_meant(asked: str) -> str:
    """``asked``, or for "auto" the best device that is here: "cuda", "mps" or "cpu"."""
    if asked != AUTO:
        return asked
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else CPU


def check_device(asked: str) -> str:
    """The device that is meant, if torch can compute there; ``UsageError`` otherwise, which says what there is. The CPU
    is there without asking torch."""
    device = device_meant(asked)
    if device == CPU:
        return device
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # unknown word, no such number, no driver, built without
        reason = first_line(error).partition(". ")[0]  # of some, pages follow
        if reason.startswith("Expected one of"):
            reason = "torch has no device of that name; a GPU is called cuda (or cuda:1, mps), the processor cpu"
        elif device.startswith("cuda") and not torch.cuda.is_available():
            reason = (
                f"torch finds no GPU ({reason}); leave out --device{in_python('--device')} to compute on the processor"
            )
        elif device == "mps":
            reason = (
                f"torch finds no GPU of Apple's; leave out --device{in_python('--device')} to compute on the processor"
            )
        raise UsageError(f"device {device!r} cannot be used here: {reason}; here there is {there_are()}") from None
    return device


def there_are() -> str:
    """The devices of this machine in words."""
    import torch

    names = [CPU]
    if torch.cuda.is_available():
        names += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return ", ".join(names)


def on_cpu(device: str) -> bool:
    """Whether a device is the processor."""
    return device.partition(":")[0] == CPU


def in_words(device: str) -> str:
    """A device with the name of its hardware, where that is known."""
    if device.startswith("cuda"):
        import torch

        return f"{device} ({torch.cuda.get_device_name(device)})"
    return device
