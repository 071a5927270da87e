"""Bounds of linear models on a data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from silent_study.data.prepared import PreparedData, Splits
from silent_study.settings import RunSettings, SettingsError
from silent_study.store.code import LIMITS, kept_code
from silent_study.store.kept import KEPT, kept

if TYPE_CHECKING:
    from silent_gradients.evaluation.limits import Limit


@dataclass(frozen=True)
class KnownLimit:
    """The bound of a linear model with its optimal decoder and encoder, fitted to one split and evaluated on one."""

    model: str  # ``PCA`` (probabilistic, one variance for all pixels) or ``factor analysis`` (a variance per pixel)
    variance: float | None  # of the likelihood, on the scale of x in [0, 1); None where every pixel has its own
    fitted_to: str  # ``train``, or the evaluated split itself: the oracle, which no model of the kind exceeds
    valued_on: str  # evaluated split, ``train`` or ``test``
    limit: Limit

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready data, the limit's numbers beside the rest."""
        document = asdict(self)
        return document | document.pop("limit")


def known_limits(splits: Splits, levels: int, latent_dim: int, variance: float | None = None) -> list[KnownLimit]:
    """Compute the bound of every linear model with a known optimum, for the splits of a protocol.

    Args:
        splits: Training and evaluated images.
        levels: Number of grey levels.
        latent_dim: Latent dimension k.
        variance: Fixed variance of the likelihood; None leaves this model out.

    Returns:
        For each model the optimum of the training images, evaluated on them and on the test images, and the oracle: the
        optimum of the test images, evaluated on them. The optimal variance is that of the fitted images.

    Raises:
        SettingsError: The latent dimension or the variance is impossible.
    """
    from silent_gradients.evaluation.limits import LinearModel, Moments

    dimensions = splits.train[0].size
    if not 0 <= latent_dim < dimensions:
        raise SettingsError(f"latent_dim: expected 0 <= k < {dimensions}, the number of pixels, got {latent_dim}")
    if variance is not None and not variance > 0:
        raise SettingsError(f"variance: expected a positive number, got {variance}")
    train, evaluated = (Moments.of(images, levels) for images in (splits.train, splits.report))

    def models(fitted: Moments) -> Iterator[tuple[str, float | None, LinearModel]]:
        for fixed in (variance, fitted.optimal_variance(latent_dim)):
            if fixed is not None:
                yield "PCA", fixed, LinearModel.with_variance(fitted, latent_dim, fixed)
        yield "factor analysis", None, LinearModel.with_learnt_variances(fitted, latent_dim)

    found = []
    for (model, fixed, optimum), (_, own, oracle) in zip(models(train), models(evaluated), strict=True):
        found += [
            KnownLimit(model, fixed, "train", "train", optimum.limit(train)),
            KnownLimit(model, fixed, "train", "test", optimum.limit(evaluated)),
            KnownLimit(model, own, "test", "test", oracle.limit(evaluated)),
        ]
    return found


def kept_factor_analysis(run: RunSettings, data: Path, results: Path) -> dict[str, Any]:
    """Return the fields of ``Limit`` for factor analysis of a run's training images on its report split.

    Any run with the data set, whose prepared folder is ``data``, and the latent dimension will do. The bound is
    computed once, then read from the folder of the ``results``.

    Raises:
        DataError: The bound is not kept yet, and the data set cannot be read.
    """

    def compute() -> bytes:
        from silent_gradients.evaluation.limits import factor_analysis_limit

        prepared = PreparedData.open(data, run.data.sha256)
        splits = prepared.split(run.data.protocol, run.data.holdout)
        limit = factor_analysis_limit(splits.train, splits.report, prepared.levels, run.latent_dim)
        return json.dumps(asdict(limit)).encode()

    made_from = {
        "data": run.to_json()["data"],
        "latent_dim": run.latent_dim,
        # A change of the code computes it again.
        "source": kept_code(LIMITS)["digest"],
    }
    path = results / KEPT / "limits" / f"{run.data.name}-{run.data.protocol}-k={run.latent_dim}.json"
    limit: dict[str, Any] = json.loads(kept(path, made_from, compute))
    return limit
