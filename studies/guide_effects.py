"""Where a guide acts: the three gradients of an encoder over training, and the gain of the bound by class of pixels.

    python -m studies.guide_effects digits/learnable/reparameterization [--base NAME[+NAME..]] [--seeds 10]

Trains a cell and its guided counterpart at equal seeds. The first table has norms and cosines of the encoder's expected
gradients on training images after some epochs: of the reported decoder's term (by its estimator), the guide's (exact)
and the KL divergence's. The second one has the parts of the bound on the test images: pixels that are constant in
training, background (level 0), strokes, and the KL divergence. Medians over seeds are printed, all rows kept as CSV.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from studies.sensitivity import POINTS, PRESETS, Study, change_named, runs_of
from torch import Tensor

from silent_gradients.decoders.likelihood import ExactObjective, GaussianLikelihood
from silent_gradients.evaluation.metrics import evaluation_mode
from silent_gradients.vae import VAE
from silent_study import params
from silent_study.evaluation.runs import OpenRun
from silent_study.plan.plan import Plan
from silent_study.training.device import configure_torch
from silent_study.training.seeds import generator

TERMS = ("decoder", "guide", "kl")


def gradients(vae: VAE, x: Tensor, draws: int, source: torch.Generator) -> dict[str, Tensor]:
    """Return the gradients of the loss's terms with respect to the encoder, by term, each as one vector.

    Args:
        vae: The model.
        x: Images [B, C, H, W]; the gradients are those of their mean.
        draws: Latent samples per image of the reported decoder's term.
        source: Source of the samples.
    """
    weights = [each for each in vae.encoder.parameters() if each.requires_grad]

    def gradient(loss: Tensor) -> Tensor:
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights, retain_graph=True)])

    q, objective = vae.posterior(x), vae.decoder.objective(x.flatten(1))
    assert vae.estimator is not None
    state, total = vae.initial_state(x.device, len(x)), torch.zeros(())
    for _ in range(draws):
        _, surrogate, state = vae.estimator(q, objective, generator=source, state=state)
        total = total - surrogate.mean() / draws
    found = {"decoder": gradient(total), "kl": gradient(q.kl_divergence().mean())}
    if vae.guide is not None:
        guide = vae.guide.objective(x.flatten(1))
        assert isinstance(guide, ExactObjective)
        found["guide"] = gradient(-guide.expectation(q).mean())
    return found


def compared(found: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the norms of gradients and the cosines of every two."""
    names = [term for term in TERMS if term in found]
    values = {f"norm {name}": float(found[name].norm()) for name in names}
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            cosine = torch.nn.functional.cosine_similarity(found[first], found[second], dim=0)
            values[f"cosine {first} {second}"] = float(cosine)
    return values


def pixel_classes(levels: Tensor, train: Tensor) -> dict[str, Tensor]:
    """Return the class of every pixel as masks, each [N, D]; every pixel of an image is in one of them.

    Args:
        levels: Grey levels of the images, [N, D].
        train: Those of the training images, [M, D].
    """
    constant = (train == train[0]).all(0).expand_as(levels)
    background = (levels == 0) & ~constant
    return {"constant": constant, "background": background, "strokes": ~constant & ~background}


def bits_by_class(opened: OpenRun, samples: int) -> dict[str, float]:
    """Return the parts of a run's bits/dim on the test images: by class of pixels, and the KL divergence.

    Args:
        opened: A run whose decoder is a Gaussian.
        samples: Latent samples per image.
    """
    vae, _ = opened.model()
    x, settings = opened.data.report, opened.settings
    splits = opened.prepared.split(settings.data.protocol, settings.data.holdout)
    train, report = (torch.tensor(each).flatten(1) for each in (splits.train, splits.report))
    dimensions, levels = report.shape[1], settings.data.levels
    with evaluation_mode(vae):
        q = vae.posterior(x)
        likelihood = vae.decoder.likelihood(q.sample(samples, generator(0, "evaluation", opened.device)))
        assert isinstance(likelihood, GaussianLikelihood)
        normal = torch.distributions.Normal(
            likelihood.mean, (-likelihood.log_precision).exp().expand_as(likelihood.mean)
        )
        nats = normal.log_prob(x.flatten(1)).mean(0)
        kl = float(q.kl_divergence().mean())
    nats_of_a_bit = dimensions * math.log(2)
    parts = {
        # Every pixel has its share of log2(levels), so that the parts add up to the bound.
        name: float(mask.float().mean()) * math.log2(levels) - float((nats * mask).sum(1).mean()) / nats_of_a_bit
        for name, mask in pixel_classes(report, train).items()
    }
    return parts | {"kl": kl / nats_of_a_bit}


def gradient_table(runs: Sequence[OpenRun], images: int, draws: int) -> pd.DataFrame:
    """Return ``compared`` at every snapshot of runs, on the first training images: a row per run and epoch."""
    rows: list[dict[str, object]] = []
    for opened in runs:
        settings = opened.settings
        for epoch in settings.snapshot_epochs:
            vae, _ = opened.model(epoch)
            source = generator(settings.seed, "gradient-reference", opened.device)
            found = compared(gradients(vae, opened.data.train[:images], draws, source))
            rows.append({"method": settings.method, "seed": settings.seed, "epoch": epoch, **found})
    return pd.DataFrame(rows)


def class_table(runs: Sequence[OpenRun], samples: int) -> pd.DataFrame:
    """Return ``bits_by_class`` of runs, a row each."""
    rows = [
        {"method": each.settings.method, "seed": each.settings.seed, **bits_by_class(each, samples)} for each in runs
    ]
    return pd.DataFrame(rows)


def main() -> None:
    """Train both cells, print the tables and write them as CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cell", help="data set/experiment/method without a guide")
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--base", default="", metavar="NAME[+NAME..]", help="changes of sensitivity.py, for both cells")
    parser.add_argument("--point", choices=POINTS, default="last", help="of every grid; default: %(default)s")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--snapshots", type=int, nargs="+", default=[1, 2, 5, 10, 20, 40], metavar="EPOCH")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=256, help="of the gradients; default: %(default)s")
    parser.add_argument("--draws", type=int, default=64, help="latent samples per image; default: %(default)s")
    parser.add_argument("--stack", type=int, default=8)
    parser.add_argument("--results", type=Path, default=Path("results/sensitivity"), help="default: %(default)s")
    options = parser.parse_args()
    configure_torch()
    device, plan = torch.device("cpu"), Plan(params.resolve({"preset": options.preset}, PRESETS))
    change = change_named(options.base) if options.base else lambda run: run
    # Runs of the grids keep no weights but the selected one's; those that are reported keep all.
    study = Study(options.results, options.stack, device, plan.params.evaluation.resolved())
    opened: list[OpenRun] = []
    cells = {cell.name: cell for cell in plan.cells()}
    for name in (options.cell, f"{options.cell}+silent"):
        length = (options.seeds, options.epochs, POINTS[options.point], options.first_seed)
        runs = [
            replace(run, snapshot_epochs=tuple(options.snapshots))
            for run in runs_of(plan, cells[name], change, *length)
        ]
        folder = study.data / cells[name].dataset
        trained = zip(study.trained(runs), runs, strict=True)
        opened += [OpenRun.load(run, settings, folder, device) for run, settings in trained]
    tables = {
        "gradients": gradient_table(opened, options.images, options.draws),
        "pixels": class_table(opened, options.draws),
    }
    for title, table in tables.items():
        by = ["method", "epoch"] if title == "gradients" else ["method"]
        print(table.drop(columns="seed").groupby(by, sort=False).median().to_string(float_format="{:.3g}".format))
        name = f"{title}-{options.cell.replace('/', '-')}.csv"
        table.to_csv(options.results / name, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
