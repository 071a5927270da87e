"""The guide in a VAE of one's own: Eq. 8 by hand, and what others' trainers do with modules."""

import copy
from typing import Any

import pytest
import torch
from tests.method.families import FAMILIES
from tests.method.reference import DOUBLE, gradients, normal, seeded
from torch import nn
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

from silent_gradients import (
    VAE,
    Bernoulli,
    FixedVarianceDecoder,
    Gaussian,
    LinearPrecisionDecoder,
    LogLinearPrecisionDecoder,
    SilentGuide,
    Standardization,
    estimators,
)

B, D, K = 6, 36, 3
X = torch.rand(B, 1, 6, 6, generator=seeded(400))


def moments(family, dtype=torch.float32):
    return [
        normal(B, K, seed=401 + part).to(dtype).requires_grad_()
        for part in range(FAMILIES[family].parameters_per_latent)
    ]


@pytest.mark.parametrize("family", ["gaussian", "bernoulli", "laplace", "uniform"])
@pytest.mark.parametrize("alpha", [0.3, 1.0, torch.tensor(0.25)])
def test_gradients_are_those_of_the_two_parts(family, alpha):
    guide, leaves = SilentGuide(K, X.double(), family=FAMILIES[family]).double(), moments(family, DOUBLE)
    assert isinstance(guide.decoder, LinearPrecisionDecoder)
    expectation = guide.decoder.objective(X.double().flatten(1)).expectation(FAMILIES[family](torch.cat(leaves, 1)))
    own = gradients(-expectation.mean(), *leaves, *guide.parameters())
    guided, *returned = guide(X.double(), *leaves, alpha=alpha)
    assert all(torch.equal(*pair) for pair in zip(returned, leaves, strict=True))
    torch.testing.assert_close(guided, -expectation.mean())
    cotangents = [normal(B, K, seed=410 + part) for part in range(len(leaves))]
    loss = guided + sum((m * c).sum() for m, c in zip(returned, cotangents, strict=True))
    for found, ours, theirs in zip(gradients(loss, *leaves), own, cotangents, strict=False):
        torch.testing.assert_close(found, alpha * ours + (1 - alpha) * theirs, rtol=1e-12, atol=1e-12)
    for found, ours in zip(gradients(guided, *guide.parameters()), own[len(leaves) :], strict=True):
        torch.testing.assert_close(found, ours, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", ["gaussian", "bernoulli", "uniform"])
def test_an_encoder_gets_the_gradient_that_it_gets_in_a_vae(family):
    """Where its output becomes parameters as there: of uniform posteriors, places faster and widths more slowly."""
    kind = FAMILIES[family]
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(D, K * kind.parameters_per_latent))
    decoder = LinearPrecisionDecoder(K, Standardization.of(X))
    vae = VAE(encoder, kind, FixedVarianceDecoder(K, D, 0.1), estimators.create("silent"), decoder)
    wanted = gradients(vae(X, 1.0).loss, *encoder.parameters())
    parameters = kind.parameters_from(encoder(X))
    moments = parameters.chunk(kind.parameters_per_latent, dim=1)
    guided, *_ = SilentGuide(K, family=kind, decoder=decoder)(X, *moments, alpha=1.0)
    loss = guided + kind(parameters).kl_divergence().mean()
    for found, exact in zip(gradients(loss, *encoder.parameters()), wanted, strict=True):
        torch.testing.assert_close(found, exact)


def test_without_a_weight_it_does_nothing():
    guide, leaves = SilentGuide(K, X), moments("gaussian")
    guided, *returned = guide(X, *leaves, alpha=0.0)
    assert float(guided) == 0
    assert all(found is leaf for found, leaf in zip(returned, leaves, strict=True))
    assert not guided.requires_grad


def test_autocast_changes_nothing():
    """Not even the moments' last digit; the encoder's bfloat16 numbers are taken as they are."""
    guide = SilentGuide(K, X)
    plain, rounded = moments("gaussian"), [m.detach().bfloat16().requires_grad_() for m in moments("gaussian")]
    for leaves in (plain, rounded):
        exact = [m.detach().float().requires_grad_() for m in leaves]
        wanted = guide(X, *exact, alpha=0.5)
        with torch.autocast("cpu", torch.bfloat16):
            found = guide(X, *leaves, alpha=0.5)
        assert torch.equal(found[0], wanted[0])
        for ours, theirs in zip(gradients(found[0], *leaves), gradients(wanted[0], *exact), strict=True):
            assert torch.equal(ours, theirs.to(ours.dtype))


def test_state_is_saved_and_loaded_without_the_images():
    guide, other = SilentGuide(K, X), SilentGuide(K, Standardization.identity(D, 1e3))
    other.load_state_dict(guide.state_dict())
    assert torch.equal(guide(X, *moments("gaussian"), alpha=1.0)[0], other(X, *moments("gaussian"), alpha=1.0)[0])
    torch.testing.assert_close(guide.decoder.mean, X.flatten(1).mean(0))


@pytest.mark.parametrize(
    "decoder", [FixedVarianceDecoder(K, D, 0.1), LogLinearPrecisionDecoder(K, Standardization.of(X))]
)
def test_any_decoder_with_an_expectation_guides(decoder):
    guided, *_ = SilentGuide(K, family=Bernoulli, decoder=decoder)(X, *moments("bernoulli"), alpha=0.5)
    assert all(slope.abs().max() > 0 for slope in gradients(guided, *decoder.parameters()))


class Guided(nn.Module):
    """A plain VAE with the three lines."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(D, 2 * K))
        self.decoder = nn.Sequential(nn.Linear(K, 8), nn.Tanh(), nn.Linear(8, D))
        self.guide = SilentGuide(K, X)

    def forward(self, x, alpha, noise):
        mean, log_variance = self.encoder(x).chunk(2, 1)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
        guided, mean, log_variance = self.guide(x, mean, log_variance, alpha=alpha)
        z = mean + (0.5 * log_variance).exp() * noise
        return kl + guided + 50 * (x.flatten(1) - self.decoder(z)).square().sum(1).mean()


def exact_vae():
    torch.manual_seed(0)
    encoder, decoder = nn.Sequential(nn.Flatten(), nn.Linear(D, 2 * K)), FixedVarianceDecoder(K, D, 0.1)
    guide = LinearPrecisionDecoder(K, Standardization.of(X))
    return VAE(encoder, Gaussian, decoder, estimators.create("silent"), guide)


def steps(guided, exact, own):
    """Losses of both models' two steps on part ``own`` of the batch: the second leaves the guides out."""
    for alpha in (0.5, 0.0):
        yield guided(X[own], alpha, normal(B, K, seed=420).float()[own]) + exact(X[own], alpha).loss


def worker(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    models = DistributedDataParallel(Guided()), DistributedDataParallel(exact_vae(), find_unused_parameters=True)
    found = []
    for loss in steps(*models, slice(rank * B // 2, (rank + 1) * B // 2)):
        loss.backward()
        found.append([w.grad.clone() for model in models for w in model.parameters()])
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_gradients_of_one_on_the_joined_batch(tmp_path):
    start_processes(worker, (tmp_path,), nprocs=2, start_method="fork")
    models, wanted = (Guided(), exact_vae()), []
    for loss in steps(*models, slice(None)):
        loss.backward()
        wanted.append([w.grad.clone() for model in models for w in model.parameters()])
    for rank in range(2):
        for ours, theirs in zip(torch.load(tmp_path / f"{rank}.pt"), wanted, strict=True):
            for found, exact in zip(ours, theirs, strict=True):
                torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))


def test_the_whole_step_compiles():
    model, noise = Guided(), normal(B, K, seed=421).float()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    slopes = [gradients(each(X, 0.5, noise), *model.parameters()) for each in (model, compiled)]
    for found, wanted in zip(*slopes, strict=True):
        torch.testing.assert_close(found, wanted)


def trained(fit):
    """The guide's weights before and after a training by someone else's loop."""
    model = Guided()
    before = copy.deepcopy(model.guide.state_dict())
    fit(model)
    after = model.guide.state_dict()
    assert before.keys() == after.keys()
    assert not torch.equal(before["decoder.mean_head.weight"], after["decoder.mean_head.weight"].cpu())


@pytest.mark.filterwarnings("ignore")  # its own
def test_lightning(tmp_path):
    lightning: Any = pytest.importorskip("lightning", reason="Lightning is not installed")

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self, model):
            super().__init__()
            self.model = model

        def training_step(self, batch, _):
            return self.model(batch, 0.5, torch.randn(len(batch), K))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 1e-2)

    def fit(model):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        quiet["enable_checkpointing"] = False
        trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", precision="bf16-mixed", **quiet)
        trainer.fit(Module(model), torch.utils.data.DataLoader(X, batch_size=3))  # type: ignore[arg-type]
        trainer.save_checkpoint(tmp_path / "model.ckpt")
        saved = torch.load(tmp_path / "model.ckpt", weights_only=False)["state_dict"]
        assert "model.guide.decoder.mean_head.weight" in saved

    trained(fit)


def test_accelerate():
    accelerate = pytest.importorskip("accelerate", reason="Accelerate is not installed")

    def fit(model):
        accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
        prepared, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters(), 1e-2))
        for _ in range(2):
            accelerator.backward(prepared(X, 0.5, normal(B, K, seed=422).float()))
            optimizer.step()
            optimizer.zero_grad()

    trained(fit)


def test_pythae():
    models: Any = pytest.importorskip("pythae.models", reason="pythae is not installed")

    class GuidedVAE(models.VAE):  # type: ignore[misc]
        def __init__(self):
            super().__init__(models.VAEConfig(input_dim=(1, 6, 6), latent_dim=K))
            self.guide = SilentGuide(K, X)

        def forward(self, inputs, **_):
            x, encoded = inputs["data"], self.encoder(inputs["data"])
            mean, log_variance = encoded.embedding, encoded.log_covariance
            guided, *moments = self.guide(x, mean, log_variance, alpha=0.5)
            z, _ = self._sample_gauss(moments[0], (0.5 * moments[1]).exp())
            loss, *_ = self.loss_function(self.decoder(z)["reconstruction"], x, mean, log_variance, z)
            return loss + guided

    model = GuidedVAE()
    model({"data": X}).backward()
    assert all(weight.grad.abs().max() > 0 for weight in model.guide.parameters())
    assert "guide.decoder.mean_head.weight" in model.state_dict()
