"""Training steps with the guide's backward pass by hand, over the same steps with automatic differentiation.

    python benchmarks/guide.py [--preset colour-reduced] [--only cifar10] [--latent 256 1024] [--json FILE]

Both kinds of steps take turns within one training.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import WARM_UP, Spread, arguments, begin, now, prepare_data, undisturbed, whole_batches

from silent_gradients.decoders import linear_precision, weighted_error
from silent_gradients.posteriors.contract import Posterior
from silent_study.settings import RunSettings
from silent_study.training.loop import Trainer
from silent_study.training.steps import Stepper

BY_HAND = weighted_error.weighted_error


def formula(q: Posterior, x: torch.Tensor, noise: torch.Tensor, *heads: torch.Tensor) -> weighted_error.WeightedError:
    """``weighted_error`` by automatic differentiation."""
    weight_m, bias_m, weight_s, bias_s = heads
    return weighted_error._from_cumulants(q.joint_cumulants(weight_m, weight_s), x, noise, bias_m, bias_s)


def always_guided(settings: RunSettings) -> RunSettings:
    """The run without the end of its guide."""
    assert settings.silent is not None
    silent = dataclasses.replace(settings.silent, cutoff_epoch=None, plateau_epochs=1e9)
    return dataclasses.replace(undisturbed(settings), silent=silent)


def ratio_of(name: str) -> Callable[[Any], float]:
    """Return the median ratio of a step's times, from what this benchmark writes."""
    return lambda document: statistics.median(other / mine for other, mine in document["steps"][name])


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__.splitlines()[0], rounds=12, steps=20)
    parser.set_defaults(preset="colour-reduced", only="cifar10")
    parser.add_argument("--methods", nargs="+", default=["silent-gaussian", "silent-bernoulli"])
    parser.add_argument("--latent", nargs="+", type=int, default=[256, 1024], help="numbers of latent variables")
    options = parser.parse_args()
    device, plan, groups, document = begin(options)
    document["steps"] = {}

    def seconds(stepper: Stepper, trainer: Trainer, expectation: object) -> float:
        linear_precision.weighted_error = expectation  # type: ignore[assignment]
        start = now(device)
        stepper.advance([trainer])
        return now(device) - start

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare_data(groups, folder)
        for cell in (cell for cells in groups.values() for cell in cells if cell.method.name in options.methods):
            for latent_dim in options.latent:
                settings = always_guided(dataclasses.replace(plan.first_run(cell), latent_dim=latent_dim))
                data = whole_batches(folder / cell.dataset, settings, options.steps, device)
                trainer, stepper = Trainer(settings, data, folder / cell.name / str(latent_dim), device), Stepper()
                rows = [
                    [seconds(stepper, trainer, expectation) for expectation in (formula, BY_HAND)]
                    for _ in range(WARM_UP + options.rounds)
                ][WARM_UP:]
                name = f"{cell.name}, k = {latent_dim}"
                document["steps"][name] = rows
                own, ratio = Spread.of([mine for _, mine in rows]), Spread.of([other / mine for other, mine in rows])
                print(
                    f"{name:52} {1e3 * own.median:8.1f} ms; formula / by hand {ratio.median:.2f} "
                    f"({ratio.low:.2f}-{ratio.high:.2f})",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
