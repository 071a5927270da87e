import numpy as np
import pytest

from silent_gradients.data.arrays import arrays_digest
from silent_gradients.data.errors import DataError
from silent_gradients.data.sources import SOURCES, source_named


def test_every_source_is_registered_under_its_name():
    assert SOURCES
    assert all(source.name == name for name, source in SOURCES.items())


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_source_can_hold_out_its_default(source):
    assert 0 < source.holdout < source.train


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(DataError, match=r"unknown data set 'digit': expected one of .*digits"):
        source_named("digit")


def test_digits_are_those_of_scikit_learn_each_once():
    datasets = pytest.importorskip("sklearn.datasets")
    source = source_named("digits")
    train, test = source.load(None)
    assert train.dtype == test.dtype == np.uint8
    assert train.shape == (source.train, *source.shape)
    assert test.shape == (source.test, *source.shape)
    assert arrays_digest(source.name, source.levels, train, test) == source.sha256

    expected = datasets.load_digits().data
    assert (expected.min(), expected.max()) == (0, source.levels - 1)
    found = np.concatenate([train, test]).reshape(-1, 64)
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, expected.astype(int).tolist()))


def test_digits_are_split_at_random():
    """Each tenth of the original order, hence each group of writers, gives about its share to the test set."""
    datasets = pytest.importorskip("sklearn.datasets")
    original = datasets.load_digits().images.astype(np.uint8)
    test = {image.tobytes() for image in source_named("digits").load(None)[1]}
    shares = [np.mean([image.tobytes() in test for image in tenth]) for tenth in np.array_split(original, 10)]
    assert np.mean(shares) == pytest.approx(360 / 1797, abs=0.005)
    assert max(abs(share - 0.2) for share in shares) < 4 * (0.2 * 0.8 / 180) ** 0.5
