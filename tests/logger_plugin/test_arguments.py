"""The literal command line works, and every command line that worked before is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake.cli import get_argument_parser
from snakemake.exceptions import WorkflowError

from snakemake_logger_plugin_silent_gradients.arguments import repair, separate_targets

REPAIRED = [
    ("--cores 8 --resources gpu=8 all", "--cores 8 --resources gpu=8 -- all"),
    ("--resources gpu=8 all --cores 8", "--resources gpu=8 --cores 8 -- all"),
    ("--resources gpu=8 mem_mb=4 all report", "--resources gpu=8 mem_mb=4 -- all report"),
    ("--res gpu=8 all", "--res gpu=8 -- all"),
    ("--resource gpu=8 all", "--resource gpu=8 -- all"),
    ("--resources gpu=8 all -- report", "--resources gpu=8 -- all report"),
    # A file of the run store has a "=" in its name, but its name begins as no resource's does.
    ("--resources gpu=8 results/store/lr=1e-3,seed=0", "--resources gpu=8 -- results/store/lr=1e-3,seed=0"),
    (
        "-c 8 --resources gpu=8 all -n --resources mem_mb=4 report",
        "-c 8 --resources gpu=8 -n --resources mem_mb=4 -- all report",
    ),
]

LEFT_ALONE = [
    "",
    "all",
    "--cores 8 all",
    "all --cores 8 --resources gpu=8",
    "--resources gpu=8 --cores 8 all",
    "--cores 8 --resources gpu=8 -- all",
    "--resources=gpu=8 all",
    "--cores 8 --resources gpu=8 mem_mb=1000",
    "--resources gpu=8 -n",
    # What is no resource at all is a mistake that the user wants to hear of.
    "--resources all",
    "--resources",
    "--default-resources mem_mb=1000 all",
    "--set-resources train:gpu=1 all",
    "--config preset=mnist all",
    "-- --resources gpu=8 all",
    "--rerun-triggers mtime all",
]


@pytest.mark.parametrize(("given_words", "expected"), REPAIRED)
def test_moves_targets_behind_the_separator(given_words, expected):
    assert separate_targets(given_words.split()) == expected.split()


@pytest.mark.parametrize("words", LEFT_ALONE)
def test_leaves_everything_else_alone(words):
    assert separate_targets(words.split()) == words.split()


@pytest.mark.parametrize(("given_words", "expected"), REPAIRED)
def test_only_what_snakemake_rejects_is_changed(given_words, expected):
    parser = get_argument_parser()
    with pytest.raises((ValueError, WorkflowError)):
        parser.parse_args(given_words.split())
    assert parser.parse_args(expected.split()).targets


def test_the_literal_command_means_what_it_says():
    arguments = get_argument_parser().parse_args(separate_targets(["--cores", "8", "--resources", "gpu=8", "all"]))
    assert list(arguments.targets) == ["all"]
    assert arguments.cores == 8
    assert arguments.resources["gpu"].value == 8


SAMPLED = "--resources --res --resources=gpu=8 gpu=8 mem_mb=4 all report a/b=1 --cores 8 -n --"
WORDS = st.lists(st.sampled_from(SAMPLED.split()), max_size=8)


@given(WORDS)
def test_nothing_is_lost_and_the_second_time_changes_nothing(words):
    once = separate_targets(words)
    assert sorted(set(once) - {"--"}) == sorted(set(words) - {"--"})
    assert len(once) - len(words) == (once.count("--") - words.count("--")) in (0, 1)
    assert separate_targets(once) == once


@given(WORDS.filter(lambda words: "--resources" not in words and "--res" not in words))
def test_needs_the_option_to_do_anything(words):
    assert separate_targets(words) == words


@pytest.mark.parametrize(
    ("program", "repaired"),
    [
        *((name, True) for name in ("snakemake", "/usr/local/bin/snakemake", "snakemake.exe")),
        ("/lib/python3/site-packages/snakemake/__main__.py", True),
        *((name, False) for name in ("pytest", "/usr/bin/python3", "snakefmt", "/somewhere/dvc/__main__.py", "")),
    ],
)
def test_repairs_the_arguments_of_snakemake_alone_in_place(program, repaired):
    argv = [program, "--resources", "gpu=8", "all"]
    same = argv
    repair(argv)
    assert same == [program, "--resources", "gpu=8", *(["--"] if repaired else []), "all"]


def test_copes_with_no_arguments_at_all():
    argv: list[str] = []
    repair(argv)
    assert argv == []
