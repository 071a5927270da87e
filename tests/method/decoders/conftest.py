import pytest

from silent_gradients.decoders import weighted_error


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch):
    """Weights of every size take the backward pass by hand, which is for large ones."""
    monkeypatch.setattr(weighted_error, "LARGE", 0)
