"""Facts about this machine for result files: versions, the kind of machine and its state, nothing that identifies it.

``run_facts`` goes into run.json, ``timing_facts`` into latency.json. What cannot be found out is left out.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from avbench.system import machine
from avbench.system.precision import gpu_rounds_float32

CHANGING = ("load_average", "cpu_mhz", "gpu_clocks_mhz", "gpu_temperature_c")  # recorded before and after timing
GPU_QUERIES = {  # fields of nvidia-smi -> name of the fact
    "driver_version": "gpu_driver",
    "clocks.sm,clocks.mem": "gpu_clocks_mhz",
    "power.limit": "gpu_power_limit_w",
    "temperature.gpu": "gpu_temperature_c",
}


def run_facts(device: str, workers: int) -> dict[str, Any]:
    """``environment`` of run.json: platform, cores that may be used, ``device``, ``workers``, package versions."""
    packages = ("torch", "numpy", "av", "pyarrow", "pandas", "safetensors")
    return {
        **_platform(),
        "cores": machine.cores(),
        "device": device,
        "workers": workers,
        **{name: metadata.version(name) for name in packages},
    }


def timing_facts(device: str) -> dict[str, Any]:
    """``environment`` of latency.json: platform, processor, torch's settings, and what may change meanwhile (load,
    clocks, temperature; see ``CHANGING``). ``device``: "cpu", "cuda" or "cuda:N"."""
    import torch

    facts: dict[str, Any] = {
        **_platform(),
        "cores": os.cpu_count() or 1,
        "cpu": _cpu_info("model name") or platform.processor() or platform.machine(),
        "torch": str(torch.__version__),
        "numpy": metadata.version("numpy"),
        "torch_threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    if mhz := _cpu_info("cpu MHz"):
        facts["cpu_mhz"] = float(mhz)
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    with contextlib.suppress(OSError):
        facts["cpu_governor"] = governor.read_text().strip()
    with contextlib.suppress(OSError, AttributeError):
        facts["load_average"] = round(os.getloadavg()[0], 2)
    if device.startswith("cuda"):
        facts |= _gpu_facts(torch, device)
    return facts


def _platform() -> dict[str, Any]:
    return {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}


def _cpu_info(field: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field), "")


def _gpu_facts(torch: Any, device: str) -> dict[str, Any]:
    facts = {
        "gpu": torch.cuda.get_device_name(device),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32": gpu_rounds_float32(),
    }
    tool = shutil.which("nvidia-smi")
    for fields, name in GPU_QUERIES.items() if tool else ():
        command = [str(tool), f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
            lines = done.stdout.splitlines()
            facts[name] = lines[min(torch.device(device).index or 0, len(lines) - 1)].strip()
    return facts
