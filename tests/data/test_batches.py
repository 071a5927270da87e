import numpy as np
import pytest
import torch
from scipy import stats

from silent_study.data.batches import DeviceBatches, dequantize, pixel_statistics, with_noise

PIXELS = np.random.default_rng(3).integers(0, 17, (50, 2, 3, 4), dtype=np.uint8)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    return request.param


def _generator(seed, device="cpu"):
    return torch.Generator(device=device).manual_seed(seed)


def _levels_of(x, levels):
    """The level in whose interval x lies, in exact enough arithmetic."""
    return torch.floor(x.double() * levels).cpu().numpy().astype(np.uint8)


@pytest.mark.parametrize(("batch_size", "number"), [(8, 6), (10, 5), (50, 1), (64, 1), (1, 50)])
def test_an_epoch_has_full_batches_alone_or_one(device, batch_size, number):
    batches = DeviceBatches(PIXELS, 17, device)
    assert len(batches) == 50
    assert batches.number_of_batches(batch_size) == number
    with pytest.raises(ValueError, match="at least 1"):
        batches.number_of_batches(batch_size - 64)


def test_batches_are_the_indexed_images_dequantized(device):
    batches = DeviceBatches(PIXELS, 17, device)
    index = batches.order(_generator(1, device))
    x = batches.at(index, _generator(2, device))
    assert (x.dtype, index.dtype, x.device.type) == (torch.float32, torch.int64, device)
    np.testing.assert_array_equal(_levels_of(x, 17), PIXELS[index.cpu().numpy()])
    np.testing.assert_array_equal(np.sort(index.cpu().numpy()), np.arange(50))


def test_seeds_decide_and_orders_and_noise_differ(device):
    batches = DeviceBatches(PIXELS, 17, device)
    drawn = []
    for _ in range(2):
        order, noise = _generator(1, device), _generator(2, device)
        drawn.append([(index, batches.at(index, noise)) for index in (batches.order(order) for _ in range(2))])
    for (index, x), (position, y) in zip(*drawn, strict=True):
        assert torch.equal(index, position)
        assert torch.equal(x, y)
    (first, _), (second, _) = drawn[0]
    assert not torch.equal(first, second)
    index = batches.order(_generator(1, device))
    x, y = (batches.at(index, _generator(seed, device)) for seed in (2, 3))
    assert not torch.equal(x, y)


def test_the_noise_does_not_depend_on_the_images(device):
    batches = DeviceBatches(PIXELS, 17, device)
    residue = []
    for seed in (1, 4):
        index = batches.order(_generator(seed, device))
        residue.append(17 * batches.at(index, _generator(2, device)).double() - batches.images[index].double())
    torch.testing.assert_close(residue[0], residue[1], rtol=0, atol=1e-5)


def test_every_image_is_first_equally_often():
    batches, order = DeviceBatches(PIXELS[:10], 17, "cpu"), _generator(5)
    first = [batches.order(order)[0].item() for _ in range(2000)]
    assert stats.chisquare(np.bincount(first, minlength=10)).pvalue > 1e-3


def test_a_mapped_read_only_array_is_taken(tmp_path, device):
    np.save(tmp_path / "train.npy", PIXELS)
    mapped = np.load(tmp_path / "train.npy", mmap_mode="r")
    assert torch.equal(DeviceBatches(mapped, 17, device).images, torch.tensor(PIXELS, device=device))


def test_the_noise_is_uniform_and_independent(device):
    count, levels = 200_000, 256
    levels_drawn = torch.randint(0, levels, (count,), generator=_generator(1)).to(torch.uint8).to(device)
    x = dequantize(levels_drawn, levels, _generator(7, device))
    u = (x.double() * levels - levels_drawn.double()).cpu().numpy()
    assert stats.chisquare(np.histogram(u, bins=100, range=(0, 1))[0]).pvalue > 1e-3
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    # Five standard errors of the exact moments: mean 1/2, variance 1/12, fourth central moment 1/80, correlation 0.
    assert abs(u.mean() - 1 / 2) < 5 * (1 / 12 / count) ** 0.5
    assert abs(u.var() - 1 / 12) < 5 * ((1 / 80 - 1 / 144) / count) ** 0.5
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5 * count**-0.5
    assert abs(np.corrcoef(u, levels_drawn.cpu().numpy())[0, 1]) < 5 * count**-0.5


@pytest.mark.parametrize("extreme", [0.0, 2.0**-24, 1.0 - 2.0**-24, 1.0])
def test_the_extremes_of_the_noise_stay_inside_their_level(device, extreme, monkeypatch):
    """Every number of levels and every level; the uniform draw is replaced by its ends (1.0: not drawn, but safe)."""
    monkeypatch.setattr(torch, "rand", lambda shape, **options: torch.full(shape, extreme, device=options["device"]))
    for levels in range(2, 257):
        every = torch.arange(levels, dtype=torch.uint8, device=device)
        x = dequantize(every, levels, _generator(0, device))
        assert x.dtype == torch.float32
        assert float(x.max()) < 1.0
        np.testing.assert_array_equal(_levels_of(x, levels), every.cpu().numpy())
        # As a device divides that multiplies with the reciprocal in float32.
        product = (x.double() * levels).float() * torch.tensor(1 / levels, dtype=torch.float32, device=device)
        np.testing.assert_array_equal(_levels_of(product, levels), every.cpu().numpy())


def test_given_noise_is_put_between_the_levels():
    noise = np.random.default_rng(4).random(PIXELS.shape, dtype=np.float32)
    x = with_noise(torch.tensor(PIXELS), 17, torch.tensor(noise)).numpy()
    np.testing.assert_allclose(x, (PIXELS + noise.astype(np.float64)) / 17, rtol=0, atol=2**-14 / 17)


def test_pixel_statistics_are_the_exact_moments():
    mean, deviation = pixel_statistics(PIXELS, 17)
    # Gauss-Legendre with two nodes integrates the noise's mean and variance exactly.
    nodes = 0.5 + np.array([-1, 1]) / np.sqrt(12)
    x = np.concatenate([(PIXELS.reshape(50, -1) + node) / 17 for node in nodes])
    assert mean.dtype == deviation.dtype == np.float64
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(deviation, x.std(axis=0), rtol=1e-13)


def test_a_constant_pixel_has_the_deviation_of_the_noise_alone():
    pixels = np.full((20_000, 1, 1, 2), 255, dtype=np.uint8)
    pixels[1, 0, 0, 1] = 0
    mean, deviation = pixel_statistics(pixels, 256)
    assert mean[0] == 255.5 / 256
    assert deviation[0] == np.sqrt(1 / 12) / 256
    assert deviation[1] > deviation[0]
