"""Completion, as a shell does it."""

import shutil
import subprocess

import pytest

from silent_study.cli import main


def script(shell, capsys):
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def completed(folder, script, *words):
    """What a real bash offers for the last of some words."""
    (folder / "completion.sh").write_text(script)
    quoted = " ".join(f"'{word}'" for word in ("silent-gradients", *words))
    program = f"""
        source completion.sh
        COMP_WORDS=({quoted}) COMP_CWORD={len(words)}
        function=$(complete -p silent-gradients | sed -E 's/.*-F ([^ ]+).*/\\1/')
        $function silent-gradients "${{COMP_WORDS[COMP_CWORD]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    run = subprocess.run(
        ["bash", "--norc", "-c", program], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    return run.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(tmp_path, capsys):
    (tmp_path / "results" / "store").mkdir(parents=True)
    (tmp_path / "pack.json").touch()
    made = script("bash", capsys)
    assert {"plan", "pace", "prepare", "prune", "evaluate"} <= set(completed(tmp_path, made, ""))
    assert completed(tmp_path, made, "pru") == ["prune"]
    assert completed(tmp_path, made, "evaluate", "--impor") == ["--importance-samples"]
    assert completed(tmp_path, made, "train", "--steps", "e") == ["eager"]
    assert completed(tmp_path, made, "prepare", "mn") == ["mnist"]
    assert completed(tmp_path, made, "evaluate", "res") == ["results"]
    assert completed(tmp_path, made, "train", "--manifest", "pa") == ["pack.json"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_is_code_of_its_shell(tmp_path, capsys, shell):
    made = script(shell, capsys)
    assert "importance-samples" in made
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=made, text=True, check=True, timeout=60)
