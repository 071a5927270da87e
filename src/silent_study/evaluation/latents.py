"""Samples and latent traversals of stored runs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from silent_study.store.code import LATENTS, kept_code
from silent_study.store.kept import KEPT, kept
from silent_study.store.runs import WEIGHTS, StoredRun, open_run

SAMPLES, UNITS, STEPS = 10, 6, 7
"""Samples of the prior, most units that are moved and most values of each."""
IMAGES = 1024
"""Most images of the report split over which a unit's KL is a mean."""


def kept_latents(run: StoredRun, data: Path, results: Path) -> dict[str, np.ndarray[Any, Any]] | None:
    """Return images decoded from latent variables; None for a run without weights.

    They are ``samples`` [n, C, H, W] of the prior, ``traversals`` [U, V, C, H, W] (means, clamped to [0, 1], as the
    samples are), and ``units`` and ``kl`` [U], see ``silent_gradients.evaluation.latents.Traversals``. They are made
    from the prepared data set in the folder ``data`` and kept in the folder of the ``results``.

    Raises:
        StoreError: The run was altered.
        DataError: The arrays are not kept yet, and the data set cannot be read.
    """
    if not run.has_weights:
        return None
    made_from = {"weights": run.identity["files"][WEIGHTS], "source": kept_code(LATENTS)["digest"]}
    content = kept(results / KEPT / "latents" / f"{run.identity['id']}.npz", made_from, lambda: _computed(run, data))
    with np.load(io.BytesIO(content)) as arrays:
        return dict(arrays)


def _computed(run: StoredRun, data: Path) -> bytes:
    import torch

    from silent_gradients.evaluation.latents import traversals
    from silent_study.evaluation.runs import OpenRun
    from silent_study.training.device import configure_torch
    from silent_study.training.seeds import generator

    configure_torch()
    opened = OpenRun.load(*open_run(run.folder), data, torch.device("cpu"))
    vae, _ = opened.model()
    source, shape = generator(0, "evaluation", opened.device), opened.settings.data.shape
    samples = vae.generate(SAMPLES, source)
    moved = traversals(vae, opened.data.report[:IMAGES], UNITS, STEPS, source)
    tensors = {"units": moved.units, "kl": moved.kl}
    for name, images in {"samples": samples, "traversals": moved.images}.items():
        # Eight bits are what a picture has.
        tensors[name] = images.clamp(0, 1).mul(255).round().to(torch.uint8).unflatten(-1, shape)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: tensor.numpy() for name, tensor in tensors.items()})  # type: ignore[arg-type]
    return buffer.getvalue()
