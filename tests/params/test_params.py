"""Every bad setting is one error that names the key, the value and how to fix it."""

import copy
import functools
import json
import operator
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.tiny import SMALL

from silent_study import params
from silent_study.data.errors import DataError
from silent_study.methods import METHODS
from silent_study.paper import PUBLISHED
from silent_study.params.overlay import laid_over, read_config, read_yaml, with_nulls
from silent_study.params.schema import Params
from silent_study.plan.plan import ROUNDS, Plan
from silent_study.settings import RunSettings, SettingsError

ROOT = Path(__file__).parents[2]
PAPER = {
    experiment: {cell.split("/")[2] for cell in PUBLISHED if cell.startswith(f"mnist/{experiment}/")}
    for experiment in ("fixed", "learnable")
}
"""The methods of the paper's tables."""
SECTION = SMALL | {"epochs": 8, "batch_size": 64, "latent_dim": 4}
FIXED = SECTION | {
    "methods": ["silent-gaussian", "reparameterization", "gumbel-softmax"],
    "snapshot_epochs": [2, 8],
    "grid": {"learning_rate": [0.001, 0.01], "variance": [0.01, 0.1]},
    "shared_axes": ["variance"],
}
LEARNABLE = SECTION | {
    "methods": ["silent-bernoulli", "reinforce", "reinforce+silent"],
    "overrides": {"reinforce+silent": {"epochs": 12, "grid": {"annealing_rate": [0.5]}}},
    "grid": {"learning_rate": [0.001], "cutoff_epoch": [None, 6]},
}
PRESET: dict[str, Any] = {
    "seeds": [0, 1],
    "experiments": {"fixed": {"digits": FIXED}, "learnable": {"digits": LEARNABLE}},
}
BAD = yaml.safe_load((Path(__file__).parent / "bad_settings.yaml").read_text())


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets")
    (folder / "small.yaml").write_text(yaml.safe_dump(PRESET))
    (folder / "large.yaml").write_text(yaml.safe_dump({**PRESET, "protocol": "paper"}))
    return folder


def resolve(presets: Path, own: dict[str, Any] | None = None) -> Params:
    return params.resolve({"preset": "small"} | (own or {}), presets)


def at(path: str, value: Any) -> dict[str, Any]:
    """``{"a": {"b": value}}`` for ``a/b``; ``f`` and ``l`` stand for the two sections, "" for no key."""
    first, _, rest = path.partition("/")
    section = {"f": "experiments/fixed/digits", "l": "experiments/learnable/digits"}.get(first, first)
    for key in reversed(f"{section}/{rest}".split("/")):
        value = {key: value} if key else value
    return value


@pytest.mark.parametrize("mistake", BAD.values(), ids=BAD.keys())
def test_a_bad_setting_is_one_clear_error(presets, mistake):
    path, value, *words = mistake
    with pytest.raises(SettingsError) as caught:
        resolve(presets, at(path, value))
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert "[key]" not in message
    assert "pydantic" not in message


def test_two_bad_settings_are_both_named(presets):
    with pytest.raises(SettingsError, match=r"(?s)epochs.*got 0.*\n.*batch_size.*got -1"):
        resolve(presets, at("f", {"epochs": 0, "batch_size": -1}))


def test_nothing_but_the_bad_setting_is_wrong_with_these(presets):
    resolve(presets)
    resolve(presets, {"protocol": "paper", "seeds": [5]})


@pytest.mark.parametrize(
    ("place", "missing", "told"),
    [
        ((), "seeds", "seeds: missing"),
        ((), "experiments", "experiments: none is left"),
        *(
            (("experiments", "fixed", "digits"), key, rf"experiments\.fixed\.digits\.{key}: missing")
            for key in ("methods", "epochs", "batch_size", "latent_dim", "network", "grid")
        ),
    ],
)
def test_a_missing_key_is_named(tmp_path, place, missing, told):
    document = copy.deepcopy(PRESET)
    functools.reduce(operator.getitem, place, document).pop(missing)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(SettingsError, match=told):
        resolve(tmp_path)


def test_numbers_that_yaml_reads_as_text_are_numbers(presets, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(
        "preset: small\n"
        "experiments: {fixed: {digits: {estimator_options: {temperature: 5e-1},\n"
        "  grid: {learning_rate: [1e-3, 3E-4], mean_rate: [null, 1e-2]}}}}\n"
    )
    assert read_yaml(path)["experiments"]["fixed"]["digits"]["grid"]["learning_rate"] == ["1e-3", "3E-4"]
    section = params.load(path, presets).experiments["fixed"]["digits"]
    assert section.grid.learning_rate == [0.001, 0.0003]
    assert section.grid.mean_rate == [None, 0.01]
    assert section.estimator_options == {"temperature": 0.5}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- preset\n- small\n", "expected keys and values, as in preset: digits, got list"),
        ("small\n", "expected keys and values, as in preset: digits, got str"),
        ("", "expected keys and values, as in preset: digits, got nothing"),
        ("preset: [small\n", "invalid YAML (while parsing a flow sequence, "),
        ("preset: small\n\tseeds: [0]\n", "invalid YAML ("),
        # YAML reads these otherwise than most people do.
        ("seeds: [0]\nseeds: [1]\n", "the key 'seeds' is repeated in lines 1 and 2; remove one of them"),
        ("data: {mirror: a, mirror: b}\n", "the key 'mirror' is repeated in line 1; remove one of them"),
        ("<<: {seeds: [0]}\n<<: {seeds: [1]}\n", "the key '<<' is repeated in lines 1 and 2; remove one of them"),
        ("preset: small\nno: 3\n", "the key 'no' in line 2 is no text to YAML; put it in quotes"),
        ("preset: small\ndata: {sets: {1: {path: x}}}\n", "the key '1' in line 2 is no text to YAML; put it in quotes"),
        ("preset: small\n[seeds]: [0]\n", "the key in brackets in line 2 is no text to YAML; put it in quotes"),
        (
            "preset: small\nexecution: {time_limit: 12:00:00}\n",
            "YAML reads 12:00:00 in line 2 as a number in base 60; put it in quotes: '12:00:00'",
        ),
        (
            "preset: small\nseeds:\n  - 3\n  - 010\n",
            "YAML reads 010 in line 4 as an octal number; write it without the leading zero, or as a text in quotes: "
            "'010'",
        ),
    ],
)
def test_a_file_that_is_no_settings_or_easily_misread_is_refused(presets, tmp_path, text, told):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        params.load(path, presets)
    assert str(caught.value).startswith(f"{path}: {told}")


def test_a_time_limit_may_be_hours_minutes_and_seconds(presets, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("preset: small\nexecution: {time_limit: '1:30:30'}\ndata: {mirror: ~/mirror}\n")
    found = params.load(path, presets)
    assert found.execution.time_limit == 90.5
    assert found.data.mirror == str(Path.home() / "mirror")
    assert resolve(presets, {"execution": {"time_limit": 12}}).execution.time_limit == 12
    for text in ("1:75:00", "1:30", "90m", "1-00:00:00"):
        with pytest.raises(
            SettingsError, match=f"time_limit: expected minutes, or hours as a text 'h:mm:ss', got '{text}'"
        ):
            resolve(presets, {"execution": {"time_limit": text}})
    assert resolve(presets, {"execution": {"time_limit": "1e1"}}).execution.time_limit == 10


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_settings_are_utf_8_in_every_locale(presets, tmp_path, monkeypatch, encoding):
    monkeypatch.setattr("io.text_encoding", lambda given, *_: encoding if given is None else given)
    (tmp_path / "params.yaml").write_text("preset: small\ndata: {mirror: /Größe}\n", encoding="utf-8")
    assert params.load(tmp_path / "params.yaml", presets).data.mirror == "/Größe"


def test_keys_over_those_that_are_merged_stand_once(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("a: &a {b: 1, c: 2}\nd: &d {<<: *a, b: 3}\ne: {<<: *d, b: 4}\n")
    assert read_yaml(path) == {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}, "e": {"b": 4, "c": 2}}


def test_a_preset_is_validated_like_the_rest(tmp_path):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({**PRESET, "sedes": [1]}))
    with pytest.raises(SettingsError, match=r"sedes: unknown key \(did you mean 'seeds'\?\)"):
        resolve(tmp_path)


def test_own_settings_lie_over_the_preset(presets):
    own = {"seeds": [7], **at("f", {"epochs": 10, "grid": {"learning_rate": [0.5]}})}
    settings = resolve(presets, own)
    section = settings.experiments["fixed"]["digits"]
    assert settings.preset == "small"
    assert settings.seeds == [7]  # a list is replaced
    assert section.epochs == 10
    assert section.grid.learning_rate == [0.5]
    assert section.grid.variance == [0.01, 0.1]  # a mapping is laid over key by key
    assert section.latent_dim == 4
    assert settings.experiments["learnable"] == resolve(presets).experiments["learnable"]


def test_own_methods_are_those_of_a_preset_without_its_overrides_of_others(presets):
    below = resolve(presets).experiments["learnable"]["digits"]
    assert "reinforce+silent" in below.overrides
    own = at("l/methods", ["silent-bernoulli", "reinforce"])
    assert resolve(presets, own).experiments["learnable"]["digits"].overrides == {}
    kept = at("l/methods", ["reinforce", "reinforce+silent"])
    assert resolve(presets, kept).experiments["learnable"]["digits"].overrides == below.overrides
    own_override = {"methods": ["reinforce"], "overrides": {"reinforce+silent": {"epochs": 12}}}
    with pytest.raises(SettingsError, match=r"overrides: 'reinforce\+silent' is not among the methods"):
        resolve(presets, {"experiments": {"learnable": {"digits": own_override}}})


def test_own_settings_replace_the_presets_overrides_key_by_key(presets):
    own = at("l", {"epochs": 20, "grid": {"learning_rate": [0.5]}})
    guided = resolve(presets, own).for_method("learnable", "digits", "reinforce+silent")
    assert (guided.epochs, guided.grid.learning_rate, guided.grid.annealing_rate) == (20, [0.5], [0.5])
    override = {"reinforce+silent": {"epochs": 30}}
    guided = resolve(presets, at("l", {"epochs": 20, "overrides": override})).for_method(
        "learnable", "digits", "reinforce+silent"
    )
    assert guided.epochs == 30
    name = "experiments.learnable.digits.overrides.reinforce+silent."
    in_force = params.overrides_in_force({"preset": "small", **own}, presets)
    assert in_force == {f"{name}grid.annealing_rate": [0.5]}
    assert params.overrides_in_force({"preset": "small"}, presets) == {}
    every = {"preset": "small", **at("l/batch_size", 32)}
    assert params.overrides_in_force(every, presets) == {f"{name}epochs": 12, **in_force}


def test_the_readmes_example_means_what_it_says():
    block = re.search(r"```yaml\n(preset: digits\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    found = params.resolve(yaml.safe_load(block[1]), ROOT / "presets")
    for method in ("silent-gaussian", "reinforce", "reinforce+silent"):
        section = found.for_method("learnable", "digits", method)
        assert (section.epochs, section.grid.learning_rate) == (80, [0.001, 0.002, 0.003])


def test_null_replaces(presets):
    assert resolve(presets, at("l/gradient_clip", 5)).experiments["learnable"]["digits"].gradient_clip == 5
    assert resolve(presets, at("l/gradient_clip", None)).experiments["learnable"]["digits"].gradient_clip is None


def test_an_override_holds_for_its_method_alone(presets):
    settings = resolve(presets)
    guided = settings.for_method("learnable", "digits", "reinforce+silent")
    baseline = settings.for_method("learnable", "digits", "reinforce")
    assert (guided.epochs, guided.grid.annealing_rate) == (12, [0.5])
    assert guided.grid.cutoff_epoch == [None, 6]
    assert baseline == settings.experiments["learnable"]["digits"]
    assert (baseline.epochs, baseline.grid.annealing_rate) == (8, [0.02])


def test_settings_cannot_be_changed_after_validation(presets):
    with pytest.raises(ValueError, match="frozen"):
        resolve(presets).seeds = [3]  # type: ignore[misc]


def test_the_repositorys_own_settings():
    own = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings = params.load(ROOT / "params.yaml")
    assert settings.preset == own["preset"]
    for preset in sorted(path.stem for path in (ROOT / "presets").glob("*.yaml")):
        loaded = params.resolve({"preset": preset}, ROOT / "presets")
        for experiment, datasets in loaded.experiments.items():
            for section in datasets.values():
                assert set(section.methods) <= set(METHODS[experiment])


BOTH = ("fixed", "learnable")


@pytest.mark.parametrize(
    ("preset", "experiments", "datasets", "seeds"),
    [
        ("digits", BOTH, ["digits"], 3),
        ("mnist-short", BOTH, ["mnist"], 2),
        ("mnist-reduced", BOTH, ["mnist"], 3),
        ("colour-reduced", ("learnable",), ["cifar10", "tiny_imagenet32"], 3),
    ],
)
def test_a_preset_has_every_cell_of_the_papers_tables_by_the_headline_protocol(preset, experiments, datasets, seeds):
    settings = params.resolve({"preset": preset}, ROOT / "presets")
    assert settings.protocol == "holdout"
    assert len(settings.seeds) == seeds
    methods = {
        name: {dataset: set(section.methods) for dataset, section in sections.items()}
        for name, sections in settings.experiments.items()
    }
    assert methods == {name: dict.fromkeys(datasets, PAPER[name]) for name in experiments}


def test_an_override_of_an_axis_that_does_not_concern_its_method_is_refused():
    presets = ROOT / "presets"
    override = {"reinforce+silent": {"grid": {"learning_rate": [0.1]}}}
    own = {"preset": "digits", "experiments": {"learnable": {"digits": {"overrides": override}}}}
    with pytest.raises(SettingsError, match=r"reinforce\+silent\.grid\.learning_rate: no axis of this method"):
        params.resolve(own, presets)


@pytest.mark.parametrize("key", ["grid", "estimator_options"])
def test_a_text_in_the_place_of_an_overrides_keys_is_named(key):
    own = {"preset": "digits", "experiments": {"learnable": {"digits": {"overrides": {"reinforce": {key: "samples"}}}}}}
    with pytest.raises(SettingsError, match=rf"overrides\.reinforce\.{key}: expected keys and values.* 'samples'"):
        params.resolve(own, ROOT / "presets")


def test_null_takes_a_section_of_the_preset_away():
    own = {"preset": "digits", "experiments": {"learnable": None}}
    assert list(params.resolve(own, ROOT / "presets").experiments) == ["fixed"]


PARTS = {
    "MNIST, fixed variance": ["mnist/fixed"],
    "MNIST, learnable variance": ["mnist/learnable"],
    "CIFAR-10": ["cifar10/learnable"],
    "ImageNet 32x32": ["imagenet32/learnable"],
    "its stand-in": ["tiny_imagenet32/learnable"],
}
"""The rows of the table of calls in docs/reproduce-the-paper.md."""


def test_settings_of_one_call_mean_the_same_as_in_the_file(presets):
    snakemake = pytest.importorskip("snakemake.cli")
    text = ["preset=small", "seeds=[3, 4]", "experiments={fixed: {digits: {gradient_clip: null}}, learnable: null}"]
    in_the_file = {entry.partition("=")[0]: yaml.safe_load(entry.partition("=")[2]) for entry in text}
    of_the_call = with_nulls(snakemake.parse_config(text))
    read: dict[str, Any] = {}
    for word in text:
        read = laid_over(read, read_config(word), removing=False)
    assert params.resolve(read, presets) == params.resolve(in_the_file, presets)
    assert params.resolve(of_the_call, presets) == params.resolve(in_the_file, presets)


def test_each_part_of_the_paper_is_one_call():
    snakemake = pytest.importorskip("snakemake.cli")
    rows = [line.split("|") for line in (ROOT / "docs" / "reproduce-the-paper.md").read_text().splitlines()]
    calls = {row[1].strip(): re.findall(r"`'(.*?)'`", row[2]) for row in rows if len(row) == 4}
    stand_in = calls["its stand-in"]
    calls["its stand-in"] = calls["ImageNet 32x32"] + stand_in
    for part, groups in PARTS.items():
        (name,) = [row for row in calls if row.startswith(part)]
        own = with_nulls(snakemake.parse_config(["preset=paper", *calls[name]]))
        assert list(Plan(params.resolve(own, ROOT / "presets")).groups()) == groups


def test_a_substituted_data_set_takes_a_place_under_its_own_name(presets):
    own = {"data": {"substitute": {"digits": "mnist"}}, "experiments": {"fixed": {"digits": {"epochs": 9}}}}
    resolved = resolve(presets, own)
    assert {experiment: list(datasets) for experiment, datasets in resolved.experiments.items()} == {
        "fixed": ["mnist"],
        "learnable": ["mnist"],
    }
    # Settings over the preset name the data set that the preset names.
    assert resolved.experiments["fixed"]["mnist"].epochs == 9
    assert resolved.for_method("learnable", "mnist", "reinforce+silent").epochs == 12


@pytest.mark.parametrize(
    ("substitute", "words"),
    [
        ({"digits": "minst"}, ["data.substitute.digits", "'minst'", "did you mean 'mnist'?"]),
        ({"digit": "mnist"}, ["data.substitute:", "'digit'", "did you mean 'digits'?"]),
        ({"digits": 5}, ["data.substitute.digits", "5"]),
        (["digits"], ["data.substitute"]),
        ("digits", ["data.substitute"]),
    ],
)
def test_a_substitution_that_cannot_be_is_named(presets, substitute, words):
    with pytest.raises(SettingsError) as error:
        resolve(presets, {"data": {"substitute": substitute}})
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_substitute_that_is_there_already_is_refused(tmp_path):
    both = copy.deepcopy(PRESET)
    both["experiments"]["fixed"]["mnist"] = both["experiments"]["fixed"]["digits"]
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(both))
    with pytest.raises(SettingsError, match=r"'mnist' already has a section in experiments\.fixed"):
        params.resolve({"preset": "both", "data": {"substitute": {"digits": "mnist"}}}, tmp_path)


def test_a_substitute_of_another_size_needs_a_network_that_fits():
    own = {"preset": "paper", "data": {"substitute": {"imagenet32": "digits"}}}
    with pytest.raises(SettingsError, match="'strided' needs 32x32 images, these have 8x8"):
        params.resolve(own, ROOT / "presets")


def test_the_papers_preset_is_the_paper():
    """Paper, Section 3.2 and Appendix B.3: data sets, methods, epochs, batch sizes, snapshots."""
    paper = params.resolve({"preset": "paper"}, ROOT / "presets")
    fixed, learnable = paper.experiments["fixed"], paper.experiments["learnable"]
    assert list(fixed) == ["mnist"]
    assert set(learnable) == {"mnist", "cifar10", "imagenet32"}
    assert (fixed["mnist"].epochs, fixed["mnist"].batch_size) == (500, 64)
    assert fixed["mnist"].snapshot_epochs == [10, 200, 500]
    assert fixed["mnist"].threshold_bpd == 6.73
    assert fixed["mnist"].gradient_clip is None
    sizes = {name: (section.epochs, section.batch_size) for name, section in learnable.items()}
    assert sizes == {"mnist": (200, 64), "imagenet32": (100, 128), "cifar10": (2000, 256)}
    for experiment, datasets in paper.experiments.items():
        for name, section in datasets.items():
            assert set(section.methods) == PAPER[experiment]
            for method in section.methods:
                longer = (name, experiment) == ("mnist", "learnable") and method.startswith("reinforce")
                assert paper.for_method(experiment, name, method).epochs == (300 if longer else section.epochs)
    # The KL divergences that it publishes need as many bits.
    assert min(section.latent_dim for name, section in learnable.items() if name != "mnist") >= 771
    assert {section.precision for part in (fixed, learnable) for section in part.values()} == {"tf32"}
    assert learnable["mnist"].latent_dim >= 186


def possible_runs(preset: str) -> dict[tuple[str, Any], list[list[RunSettings]]]:
    """The runs of each cell and round; of each run the settings that it may have."""
    plan = Plan(params.resolve({"preset": preset}, ROOT / "presets"))
    return {
        (cell.name, round_): plan.possible_runs(cell, round_) for round_ in ROUNDS for cell in plan.cells_of(round_)
    }


def test_no_method_of_the_colour_preset_has_more_points_than_a_baseline():
    points = {cell: len(runs) for (cell, round_), runs in possible_runs("colour-reduced").items() if round_ != "seeds"}
    assert len(points) == 16
    assert {cell: count for cell, count in points.items() if count != 1} == {
        f"{name}/learnable/reinforce": 2 for name in ("cifar10", "tiny_imagenet32")
    }


@pytest.mark.parametrize(("preset", "dataset"), [("digits-beyond", "digits"), ("mnist-beyond", "mnist")])
def test_the_silent_and_the_sampled_guide_differ_in_nothing_else(preset, dataset):
    resolved = params.resolve({"preset": preset}, ROOT / "presets")
    assert set(resolved.experiments) == set(METHODS) - {"two-layer"}
    methods = resolved.experiments["learnable"][dataset].methods
    sampled = [method for method in methods if method.endswith("+sampled")]
    assert sampled == ["reparameterization+sampled", "gumbel-softmax+sampled", "reinforce+sampled"]
    for method in sampled:
        silent = method.replace("+sampled", "+silent")
        own = resolved.for_method("learnable", dataset, method)
        assert own == resolved.for_method("learnable", dataset, silent)


@pytest.mark.parametrize("preset", ["mnist-reduced", "mnist-beyond", "mnist-fixed"])
def test_methods_of_the_smaller_presets_have_equal_budgets(preset):
    """As many points each; an annealed method adds its own to its baseline's."""
    assert {len(runs) for (_, round_), runs in possible_runs(preset).items() if round_ != "seeds"} == {2}


def test_the_preset_for_one_gpu_is_the_papers_but_for_length_rates_and_seeds():
    smaller, paper = (params.resolve({"preset": preset}, ROOT / "presets") for preset in ("mnist-fixed", "paper"))
    changed = {"epochs", "snapshot_epochs", "grid", "overrides", "shared_axes"}
    own, published = (resolved.experiments["fixed"]["mnist"].model_dump() for resolved in (smaller, paper))
    assert {name for name, value in own.items() if value != published[name]} == changed
    assert smaller.protocol == paper.protocol


def test_every_run_of_the_reduced_preset_is_one_of_the_preset_beyond_it():
    def ids(preset):
        return {run.id for runs in possible_runs(preset).values() for candidates in runs for run in candidates}

    assert ids("mnist-reduced") < ids("mnist-beyond")


@pytest.fixture
def own_images(tmp_path, monkeypatch):
    """Settings of a data set of 20 images with 28x28 pixels, in the place of the digits."""
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "mine.npy", np.zeros((20, 28, 28), dtype=np.uint8))
    return {"data": {"sets": {"mine": {"path": "mine.npy"}}, "substitute": {"digits": "mine"}}}


def test_own_images_are_a_data_set(presets, own_images):
    resolved = resolve(presets, own_images)
    assert list(resolved.experiments["fixed"]) == ["mine"]
    source = resolved.sources["mine"]
    assert (source.train, source.test, source.holdout, source.shape) == (18, 2, 1, (1, 28, 28))
    plan = Plan(resolved)
    run = plan.first_run(plan.cells()[0])
    assert (run.data.name, run.data.sha256, run.data.holdout) == ("mine", source.sha256, 1)


def test_own_images_that_nobody_uses_are_not_read(presets, own_images):
    own_images["data"].pop("substitute")
    own_images["data"]["sets"]["other"] = {"path": "no/where"}
    assert list(resolve(presets, own_images).sources) == ["digits"]


def test_own_images_of_a_size_that_the_networks_do_not_serve(presets, own_images):
    network = {"architecture": "strided", "encoder_channels": [2] * 4, "decoder_channels": [2] * 4}
    own_images["experiments"] = {"fixed": {"digits": {"network": network}}}
    with pytest.raises(SettingsError) as error:
        resolve(presets, own_images)
    assert str(error.value) == (
        "experiments.fixed.mine.network: 'strided' needs 32x32 images, these have 28x28; use 'plain', or set "
        "data.sets.mine.size: [32, 32]"
    )


def test_more_images_held_out_than_own_images_are_there(presets, own_images):
    own_images["experiments"] = {"fixed": {"digits": {"holdout": 18}}}
    with pytest.raises(SettingsError, match=r"mine\.holdout: 18 leaves none of the 18 training images to train on"):
        resolve(presets, own_images)


def test_one_own_set_is_read_without_the_rest_of_the_settings(presets, own_images):
    resolved = resolve(presets, own_images)
    alone = params.source_of("mine", json.loads(resolved.own_set("mine")), presets)
    assert alone.description == resolved.sources["mine"].description
    assert params.source_of("digits", {}, presets).name == "digits"
    with pytest.raises(DataError, match="unknown data set 'yours'"):
        params.source_of("yours", own_images, presets)
    own_images["data"]["sets"]["mine"]["pth"] = 3
    with pytest.raises(SettingsError, match=r"data\.sets\.mine\.pth: unknown key \(did you mean 'path'\?\)"):
        params.source_of("mine", own_images, presets)
