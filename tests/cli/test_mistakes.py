"""Plausible mistakes with every verb: each is one line that says what is wrong, and none is a traceback."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tiny import write_study

from silent_study.cli import main
from silent_study.params import resolve
from silent_study.plan.plan import Plan
from silent_study.store.packs import PackSpec
from silent_study.store.runs import RunStore


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """A folder with a run that keeps its weights, and one that does not; both of tiny data."""
    folder = tmp_path_factory.mktemp("made")
    store = RunStore(folder / "store")
    runs = tuple(
        tiny.settings("fixed/reinforce", epochs=1, snapshot_epochs=(), learning_rate=rate) for rate in (1e-3, 2e-3)
    )
    pack = PackSpec("baselines", "tiny/fixed", runs, None)
    tiny.run(pack, store)
    best, other = sorted((store.folder(run.name) for run in runs), key=lambda path: not (path / "weights.pt").exists())
    (folder / "best").symlink_to(best)
    (folder / "other").symlink_to(other)
    (folder / "pack.json").write_text(json.dumps(pack.to_json()))
    (folder / "data").symlink_to(tiny.folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch, made, cpu_command):
    """A folder in which the settings are right."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SILENT_GRADIENTS_MIRROR", raising=False)
    write_study(tmp_path, preset={"seeds": [0]})
    for path in made.iterdir():
        Path(path.name).symlink_to(path)


def plan():
    return Plan(resolve({"preset": "small"}, Path("presets")), Path("results"))


def settings(text):
    return lambda: Path("params.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())


def file(path, text="a file\n"):
    def write():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)

    return write


def gone(path):
    return lambda: shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()


def folder(path):
    def make():
        if Path(path).is_file():
            Path(path).unlink()
        Path(path).mkdir(parents=True)

    return make


def nothing():
    pass


def damaged_selection():
    path = plan().selection_path("baselines", "digits/fixed", {})
    file(path, "{")()


def altered_weights():
    shutil.copytree("store", "altered")
    (weights,) = Path("altered").rglob("weights.pt")
    weights.write_bytes(b"other")
    Path("run").symlink_to(weights.parent)


Mistake = tuple[Callable[[], object], list[str], str]

NO_PARAMS: Mistake = (
    gone("params.yaml"),
    [],
    "params.yaml: cannot be read (No such file or directory); go to the folder of the clone, which has it",
)
SETTINGS: tuple[Mistake, ...] = (
    NO_PARAMS,
    (folder("params.yaml"), [], "params.yaml: cannot be read (Is a directory)"),
    (settings(b"preset: \xff\xfe\n"), [], "params.yaml: not a text in UTF-8 (invalid start byte at byte 8)"),
    (settings("preset: smal\n"), [], "got 'smal' (did you mean 'small'?)"),
    (settings("preset: small\nseeds: &a [*a]\n"), [], "seeds"),
    (
        settings("preset: small\nexperiments: 3\n"),
        [],
        "experiments: expected keys and values, as in experiments: {key: value}, got 3",
    ),
    (
        settings("preset: small\nexecution: {tensorboard: yes}\n"),
        [],
        "execution.tensorboard: no setting is a truth value, as which YAML reads yes, no, on, off, true and false",
    ),
    (gone("presets"), [], "'paper'], got 'small'"),
    (nothing, ["--config", "preset: small"], "--config: expected KEY=VALUE, as in 'seeds=[0]', or a JSON object"),
    (nothing, ["--settings", "[1]"], "--settings: expected a JSON object, got list"),
    (nothing, ["--settings", "{}"], "preset: expected one of ['small'], got None"),
    (file("results"), [], "results: a file, where the folder of the results should be"),
    (
        lambda: Path("results").symlink_to("disk"),
        [],
        "results: a link to disk, which is not there, where the folder of",
    ),
    (nothing, ["--confg", "{}"], "unrecognized arguments: --confg {}"),
    (settings("preset: small\nseeds: [18446744073709551616]\n"), [], "seeds"),
)

MISTAKES = {
    "plan": (
        *SETTINGS,
        (file("results/pace.json", "{"), [], "results/pace.json: cannot be read"),
        (file("results/pace.json", "[]"), [], "results/pace.json: no measured pace"),
        (
            nothing,
            ["--config", "seeds=[0]", "--config", "protocol=paper"],
            "--config: given twice; put all values after",
        ),
        (nothing, ["--configfile", "a.yaml", "--configfile", "b.yaml"], "--configfile: given twice"),
        (nothing, ["extra"], "unrecognized arguments: extra"),
    ),
    "status": (
        *SETTINGS,
        (nothing, ["--watch", "0"], "expected a positive number, got '0'"),
        (nothing, ["--watch", "soon"], "expected a positive number, got 'soon'"),
        (nothing, ["--watch", "--json"], "not allowed with"),
        (file("results/pace.json", "{"), [], "results/pace.json: cannot be read"),
    ),
    "pace": (
        *SETTINGS,
        (nothing, ["--rounds", "0"], "expected a whole number of 1 or more, got '0'"),
        (nothing, ["--rounds", "many"], "expected a whole number of 1 or more, got 'many'"),
    ),
    "select": (
        *((make, ["baselines", "digits/fixed", *options], line) for make, options, line in SETTINGS),
        (nothing, [], "the following arguments are required: round, DATASET/EXPERIMENT"),
        (nothing, ["baseline", "digits/fixed"], "(did you mean 'baselines'?)"),
        (nothing, ["guided", "digits/fixed"], "digits/fixed: no group with a round guided; known: "),
        (nothing, ["baselines", "digit/fixed"], "digit/fixed: no group with a round baselines; known: digits/fixed"),
    ),
    "gather": (*SETTINGS, (damaged_selection, [], "-1.json: not made yet")),
    "report": (
        *SETTINGS,
        (nothing, [], "results/report.html: not written yet"),
        (folder("results/report.html"), [], "results/report.html: not written yet"),
    ),
    "prune": (
        NO_PARAMS,
        (settings("preset: smal\n"), [], "did you mean 'small'"),
        (nothing, ["--keep", "HEAD~3"], "--keep HEAD~3: there is no git checkout here"),
        (folder(".git"), [], "git"),
        (nothing, ["--keep"], "--keep: expected one argument"),
        (nothing, ["--remove"], "unrecognized arguments: --remove"),
        (file("results"), [], "results: a file"),
        (damaged_selection, [], "cannot be read"),
        (file("results/gathered/ab.json", "{"), [], "results/gathered/ab.json: cannot be read"),
        (file("results/packs/ab.json", "{}"), [], "ab.json: none of the packs (KeyError('members')); delete it"),
        (file("results/selections/ab.json", "[]"), [], "selections/ab.json: none of the selections (TypeError("),
    ),
    "download": (
        (nothing, [], "the following arguments are required: dataset"),
        (nothing, ["mnits"], "unknown data set 'mnits' (did you mean 'mnist'?)"),
        (nothing, ["../mnist"], "unknown data set '../mnist'"),
        (nothing, ["mnist", "--mirror", "nowhere"], "mirror 'nowhere': there is no such folder"),
        (file("mirror"), ["mnist", "--mirror", "mirror"], "mirror 'mirror'"),
        (nothing, ["mnist", "--mirror", "ftp://example.org"], "ftp://example.org"),
        (file("record"), ["digits", "--record", "record/digits.json"], "record"),
        (nothing, ["digits", "--record", "/proc/digits.json"], "/proc"),
    ),
    "prepare": (
        (nothing, [], "the following arguments are required: dataset"),
        (nothing, ["digitz"], "unknown data set 'digitz'"),
        (nothing, ["MNIST"], "unknown data set 'MNIST'"),
        (nothing, ["mnist", "--mirror", "nowhere"], "mirror 'nowhere': there is no such folder"),
        (file("data2"), ["digits", "--folder", "data2"], "data2"),
        (nothing, ["digits", "--folder", "/proc/digits"], "/proc/digits"),
        (nothing, ["digits", "--folder"], "--folder: expected one argument"),
        (nothing, ["digits", "mnist"], "unrecognized arguments: mnist"),
    ),
    "dequantize": (
        (nothing, [], "the following arguments are required: dataset"),
        (nothing, ["digitz"], "unknown data set 'digitz'"),
        (file("data2"), ["digits", "--folder", "data2"], "data2"),
        (nothing, ["digits", "--folder", "/proc/digits"], "/proc/digits"),
        (nothing, ["digits", "--seed", "3"], "unrecognized arguments: --seed 3"),
    ),
    "limit": (
        (nothing, ["digits"], "the following arguments are required: --latent-dim"),
        (nothing, ["digitz", "--latent-dim", "4"], "unknown data set 'digitz' (did you mean 'digits'?)"),
        (nothing, ["digits", "--latent-dim", "4", "--folder", "data"], "data: expected tiny with sha256 acef9a77aa59"),
        (
            nothing,
            ["digits", "--latent-dim", "4", "--folder", "nowhere"],
            "nowhere/manifest.json: expected the manifest",
        ),
        (nothing, ["mnist", "--latent-dim", "4", "--mirror", "nowhere"], "mirror 'nowhere': there is no such folder"),
        (nothing, ["digits", "--latent-dim", "0"], "expected a whole number of 1 or more, got '0'"),
        (nothing, ["digits", "--latent-dim", "3.5"], "expected a whole number of 1 or more, got '3.5'"),
        (nothing, ["digits", "--latent-dim", "99"], "99"),
        (nothing, ["digits", "--latent-dim", "4", "--variance", "-1"], "expected a positive number, got '-1'"),
        (nothing, ["digits", "--latent-dim", "4", "--variance", "inf"], "expected a positive number, got 'inf'"),
        (nothing, ["digits", "--latent-dim", "4", "--protocol", "holdot"], "(did you mean 'holdout'?)"),
        (nothing, ["digits", "--latent-dim", "4", "--holdout", "0"], "expected a whole number of 1 or more"),
        (nothing, ["digits", "--latent-dim", "4", "--holdout", "9999"], "9999"),
        (
            file("limits"),
            ["digits", "--latent-dim", "2", "--json", "limits/a.json"],
            "limits",
        ),
    ),
    "train": (
        (nothing, [], "the following arguments are required: --pack, --data, --manifest"),
        *(
            (make, ["--pack", pack, "--data", "data", "--manifest", "m.json"], line)
            for make, pack, line in (
                (nothing, "nowhere.json", "nowhere.json: No such file or directory"),
                (folder("packs"), "packs", "packs: Is a directory"),
                (nothing, "{", "--pack: invalid JSON"),
                (nothing, "{}", "--pack: not a pack as the workflow makes them (KeyError('evaluation'))"),
                (file("list.json", "[]"), "list.json", "list.json: expected a JSON object, got list"),
                (lambda: Path("bytes.json").write_bytes(b"\xff\xfe{"), "bytes.json", "bytes.json: invalid JSON"),
                (
                    nothing,
                    json.dumps({"round": "seeds", "group": "a/b", "members": [], "shared": {}, "evaluation": None}),
                    "--pack: a pack without runs",
                ),
                (
                    nothing,
                    json.dumps({"round": "seeds", "group": "a/b", "members": [{}], "shared": {}, "evaluation": None}),
                    "run settings: missing keys",
                ),
            )
        ),
        *(
            (make, ["--pack", "pack.json", "--manifest", "m.json", "--data", "data", *options], line)
            for make, options, line in (
                (nothing, ["--data", "nowhere"], "nowhere/manifest.json: expected the manifest"),
                (nothing, ["--stack", "0"], "expected a whole number of 1 or more, got '0'"),
                (nothing, ["--time-limit", "0"], "expected a positive number, got '0'"),
                (nothing, ["--checkpoint-seconds", "nan"], "expected a positive number, got 'nan'"),
                (nothing, ["--steps", "graphs"], "(did you mean 'graph'?)"),
                (file("results"), [], "results"),
                (nothing, ["--store", "/proc/store"], "/proc/store"),
                (file("leases"), [], "leases"),
                (file("events"), ["--store", "new", "--tensorboard", "events"], "events"),
                (file("manifests"), ["--store", "store", "--manifest", "manifests/a.json"], "manifests"),
            )
        ),
    ),
    "evaluate": (
        (nothing, [], "the following arguments are required: run_folder"),
        (nothing, ["nowhere"], "nowhere: there is no such folder; to list the runs: ls -d results/store/*/*/*/*"),
        (folder("empty"), ["empty"], "empty: expected the folder of a run, found no settings.json in it"),
        (nothing, ["params.yaml"], "params.yaml: expected the folder of a run"),
        (nothing, ["store"], "store: expected the folder of a run"),
        (nothing, ["other", "--data", "data"], "the best of each cell of a grid; of this cell: "),
        (nothing, ["best"], "data/prepared/tiny/manifest.json: expected the manifest"),
        (nothing, ["best", "--data", "nothere"], "make it: silent-gradients prepare tiny --folder "),
        (altered_weights, ["run", "--data", "data"], "weights.pt: expected sha256"),
        (nothing, ["best", "--samples", "0"], "expected a whole number of 1 or more, got '0'"),
        (nothing, ["best", "--importance-samples", "-1"], "expected a whole number of 0 or more, got '-1'"),
        (nothing, ["best", "--split", "tset"], "(did you mean 'test'?)"),
        (file("out"), ["best", "--data", "data", "--json", "out/a.json"], "out"),
        (nothing, ["best", "other"], "unrecognized arguments: other"),
    ),
    "variance": (
        (nothing, [], "the following arguments are required: run_folder"),
        (nothing, ["nowhere"], "nowhere: there is no such folder"),
        (nothing, ["other", "--data", "data"], "keeps no weights"),
        (nothing, ["best"], "data/prepared/tiny/manifest.json: expected the manifest"),
        (altered_weights, ["run", "--data", "data"], "weights.pt: expected sha256"),
        (nothing, ["best", "--data", "data", "--draws", "1"], "draws: expected 4 or more, got 1"),
        (nothing, ["best", "--data", "data", "--images", "0"], "images: expected 1 or more, got 0"),
        (nothing, ["best", "--data", "data", "--draws", "many"], "many"),
        (nothing, ["best", "--data", "data", "--estimators", "rlo"], "estimators"),
        (nothing, ["best", "--data", "data", "--estimators", ""], "estimators"),
        (nothing, ["best", "--data", "data", "--estimators", "gumbel-softmax:temperature"], "estimators"),
        (file("out"), ["best", "--data", "data", "--estimators", "silent", "--draws", "4", "--out", "out"], "out"),
    ),
    "completion": (
        (nothing, [], "the following arguments are required: shell"),
        (nothing, ["bsah"], "(did you mean 'bash'?)"),
        (nothing, ["fish"], "'fish' is none of bash, zsh, tcsh"),
    ),
}


@pytest.mark.parametrize(
    ("verb", "make", "options", "line"),
    [
        pytest.param(verb, *mistake, id=f"{verb} {number}")
        for verb, mistakes in MISTAKES.items()
        for number, mistake in enumerate(mistakes)
    ],
)
def test_a_mistake_is_a_line(here, capsys, verb, make, options, line):
    make()
    code: object
    try:
        code = main([verb, *options])
    except SystemExit as stopped:
        code = stopped.code
    said = capsys.readouterr().err
    told = [each for each in said.splitlines() if not each.startswith("waiting for")]
    assert code in (1, 2), said
    assert len(told) == 1, said
    assert told[0].startswith(f"silent-gradients {verb}: ") or told[0].startswith("silent-gradients: ")
    assert line in told[0]
    assert not os.path.lexists("logs")


def test_a_package_that_is_not_installed_is_named(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert capsys.readouterr().err.endswith("shtab is not installed; pip install 'silent-gradients[workflow]'\n")
