import dataclasses
import json
from typing import Any

import pytest

from silent_gradients import networks
from silent_study import settings as module
from silent_study.settings import (
    DataSettings,
    EvaluationSettings,
    NetworkSettings,
    RunSettings,
    SettingsError,
    SilentSettings,
    digest,
)

SILENT = SilentSettings(
    role="annealed",
    sampled=False,
    plateau_epochs=2.0,
    annealing_rate=0.1,
    cutoff_epoch=20,
    mean_rate=1e-3,
    precision_rate=1e-2,
    guide="linear",
    log_term="taylor-square",
)
RUN = RunSettings(
    experiment="learnable",
    method="reinforce+silent",
    data=DataSettings("digits", "ab" * 32, (1, 8, 8), 17, "holdout", 200),
    posterior="bernoulli",
    latent_dim=16,
    network=NetworkSettings("plain", (8, 16, 16), (8, 16, 16, 8, 8)),
    initialization="standardized",
    precision="float32",
    estimator="reinforce",
    estimator_options={"decay": 0.99, "samples": 1},
    silent=SILENT,
    variance=None,
    seed=0,
    epochs=30,
    batch_size=64,
    learning_rate=1e-3,
    mean_rate=None,
    precision_rate=None,
    betas=(0.9, 0.999),
    weight_decay=0.01,
    gradient_clip=None,
    evaluate_every=5,
    evaluation_samples=10,
    snapshot_epochs=(10, 20),
    threshold_bpd=6.5,
    cooldown_epochs=4.0,
    kl_warmup_epochs=3.0,
    last_layer_scale=1.0,
)


LATER: dict[str, Any] = {"cooldown_epochs": 0.0, "kl_warmup_epochs": 0.0, "last_layer_scale": 0.1}
"""Settings added after runs had been stored, with their defaults."""


def leaves(document: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of every field, nested records included."""
    if not dataclasses.is_dataclass(document):
        return [path]
    fields = [field.name for field in dataclasses.fields(document)]
    return [leaf for name in fields for leaf in leaves(getattr(document, name), (*path, name))]


def altered(value: Any) -> Any:
    match value:
        case None:
            return 7
        case bool():
            return not value
        case str():
            return value + "x"
        case int() | float():
            return value + 1
        case tuple():
            return (value[0] + 1, *value[1:])
        case dict():
            return {**value, "samples": 2}
    raise TypeError(value)


def with_altered(record: Any, path: tuple[str, ...]) -> Any:
    head, *rest = path
    old = getattr(record, head)
    return dataclasses.replace(record, **{head: with_altered(old, tuple(rest)) if rest else altered(old)})


def reversed_keys(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: reversed_keys(document[key]) for key in reversed(document)}
    return document


VARIANTS = [
    RUN,
    dataclasses.replace(RUN, silent=None, variance=0.01, mean_rate=1e-2, experiment="fixed", gradient_clip=5.0),
    dataclasses.replace(RUN, silent=None, mean_rate=1e-2, precision_rate=1e-3, experiment="log-linear"),
    dataclasses.replace(RUN, estimator_options={}, snapshot_epochs=(), threshold_bpd=None),
    dataclasses.replace(RUN, **LATER),
]


@pytest.mark.parametrize("run", VARIANTS)
def test_json_round_trip(run):
    again = RunSettings.from_json(json.loads(json.dumps(run.to_json())))
    assert again == run
    assert again.id == run.id
    assert isinstance(again.data, DataSettings)
    assert isinstance(again.betas, tuple)
    assert isinstance(again.network.encoder_channels, tuple)


def test_every_field_was_altered():
    names = {path[0] for path in leaves(RUN)}
    assert names == {field.name for field in dataclasses.fields(RunSettings)}
    assert ("silent", "log_term") in leaves(RUN)
    assert ("data", "sha256") in leaves(RUN)


def test_the_id_depends_on_every_field():
    ids = [RUN.id, *(with_altered(RUN, path).id for path in leaves(RUN))]
    assert len(set(ids)) == len(ids)


def test_id_depends_on_the_numerics_version(monkeypatch):
    before = RUN.id
    monkeypatch.setattr(module, "NUMERICS_VERSION", module.NUMERICS_VERSION + 1)
    assert dataclasses.replace(RUN).id != before


def test_id_is_stable_under_key_order_and_between_processes():
    document = RUN.to_json()
    shuffled = reversed_keys(document)
    assert list(shuffled) != list(document)
    assert RunSettings.from_json(shuffled).id == RUN.id
    assert len(RUN.id) == 12
    assert set(RUN.id) <= set("0123456789abcdef")


def test_runs_stored_before_there_were_some_settings_keep_their_ids(monkeypatch):
    monkeypatch.setattr(module, "NUMERICS_VERSION", 2)
    before = dataclasses.replace(RUN, **LATER)
    document = {key: value for key, value in RUN.to_json().items() if key not in LATER}
    assert before.to_json() == document
    assert RunSettings.from_json(document) == before
    assert before.id == "fadc2f93cc6c"  # as revision 7a2e548 has it


def test_digest_is_the_sha256_of_the_canonical_form():
    # printf '{"a":[1,2],"b":null}' | sha256sum
    expected = "f25109c4111335e4a32d49373585e7a788ff5b10e70023f7004b170e7f84716a"
    assert digest({"b": None, "a": (1, 2)}) == expected


@pytest.mark.parametrize(
    "where", [(), ("data",), ("network",), ("silent",)], ids=lambda where: "/".join(where) or "run"
)
def test_missing_and_unknown_keys_are_named(where):
    def nested(document):
        for key in where:
            document = document[key]
        return document

    for key in set(nested(RUN.to_json())) - set(LATER):
        document = RUN.to_json()
        del nested(document)[key]
        with pytest.raises(SettingsError, match=rf"missing keys \['{key}'\]"):
            RunSettings.from_json(document)
    document = RUN.to_json()
    nested(document)["temprature"] = 1
    with pytest.raises(SettingsError, match=r"unknown keys \['temprature'\]"):
        RunSettings.from_json(document)
    if where:
        with pytest.raises(SettingsError, match=".".join(where)):
            RunSettings.from_json(document)


def test_cell_and_dimensions():
    assert RUN.cell == "digits/learnable/reinforce+silent"
    assert RUN.data.dimensions == 64
    assert dataclasses.replace(RUN.data, shape=(3, 32, 32)).dimensions == 3072


def test_the_names_of_two_runs_show_what_differs():
    names = {dataclasses.replace(RUN, seed=seed).name.rpartition("-")[0] for seed in (20240101, 20240102)}
    assert {name.rpartition("=")[2] for name in names} == {"20240101", "20240102"}


def test_name_is_the_cell_and_ends_in_the_id():
    names = {dataclasses.replace(RUN, seed=seed).name for seed in range(3)}
    assert len(names) == 3
    assert RUN.name.startswith(RUN.cell + "/")
    assert RUN.name.endswith("-" + RUN.id)
    for part in ("lr=0.001", "mean=0.001", "precision=0.01", "anneal=0.1", "cutoff=20", "seed=0"):
        assert part in RUN.name
    assert set(RUN.name.removeprefix(RUN.cell + "/")) <= set("abcdefghijklmnopqrstuvwxyz0123456789=,.-")


def test_name_of_a_run_without_a_guide():
    fixed = dataclasses.replace(RUN, silent=None, variance=0.01, mean_rate=0.02, seed=4)
    assert fixed.name == f"digits/learnable/reinforce+silent/lr=0.001,mean=0.02,var=0.01,seed=4-{fixed.id}"
    run = dataclasses.replace(RUN, silent=None, experiment="log-linear", mean_rate=0.02, precision_rate=0.004)
    assert run.name == f"digits/log-linear/reinforce+silent/lr=0.001,mean=0.02,precision=0.004,seed=0-{run.id}"


def test_evaluation_settings_round_trip():
    evaluation = EvaluationSettings(samples=16, variance_images=64, variance_draws=100, reconstructions=8)
    assert EvaluationSettings.from_json(dataclasses.asdict(evaluation)) == evaluation
    with pytest.raises(SettingsError, match="evaluation"):
        EvaluationSettings.from_json({"samples": 16})


def test_architectures_are_those_of_the_networks():
    """The settings have a table of their own, since validating them loads no torch."""
    made = {
        name: (network.encoder_channels, network.decoder_channels, network.size)
        for name, network in networks.ARCHITECTURES.items()
    }
    assert {name: dataclasses.astuple(traits) for name, traits in module.ARCHITECTURES.items()} == made
