"""What made a run: source, hardware, versions, time."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from silent_study.store.code import SOURCE
from silent_study.store.documents import Provenance, Source
from silent_study.store.runs import read_json

if TYPE_CHECKING:
    import torch

TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"
"""Environment variable with which NVIDIA's libraries use TF32, or not, whatever torch asks them for."""

REVISION = "revision.json"
"""Name of a file beside the packages that tells their revision outside a checkout."""


def provenance(started: datetime, seconds: float, images: int, device: torch.device) -> Provenance:
    """Return the provenance of a training that ends now, in this process, which ``started`` it.

    The training has read ``images`` in the ``seconds`` of all processes.
    """
    import numpy as np
    import torch

    return {
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "images_per_second": round(images / seconds, 1) if seconds > 0 else None,
        "device": device.type,
        "hardware": hardware_of(device),
        "threads": torch.get_num_threads(),
        "float32": {
            "products": torch.backends.cuda.matmul.fp32_precision,
            "convolutions": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
            TF32_OVERRIDE: os.environ.get(TF32_OVERRIDE),
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "source": source_revision(),
    }


def hardware_of(device: torch.device) -> str:
    """Return the name of a device; that of a processor with the instructions that torch uses there.

    Torch chooses its kernels, and so how sums are rounded, by these instructions and not by a name like ``AMD EPYC``.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}"


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def source_revision(source: Path = SOURCE) -> Source:
    """Return the last commit that changed the source, and whether the files differ from it; nulls outside a checkout.

    The newest commit of all may have changed settings alone, which makes no other results.
    """
    if (source / REVISION).exists():
        return read_json(source / REVISION)
    revision = git("log", "-1", "--format=%H", "--", ".", folder=source)
    if not revision:
        return {"revision": None, "modified": None}
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", folder=source)
    return {"revision": revision.strip(), "modified": None if changed is None else bool(changed)}


def git(*arguments: str, folder: Path = Path(), text: str = "") -> str | None:
    """Return what git prints in a folder, given a text as input; None where it fails or is not installed."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
