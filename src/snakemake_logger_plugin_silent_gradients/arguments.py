"""Keep ``--resources`` from swallowing the targets after it.

In ``snakemake --cores 8 --resources gpu=8 all``, ``--resources`` takes every word up to the next option, so Snakemake
fails at ``all``, which is no NAME=VALUE, before it reads the Snakefile. Logger plugins are imported before the
arguments are parsed, early enough to move the targets.
"""

import re
from collections.abc import MutableSequence, Sequence
from pathlib import PurePath

_OPTION = "--resources"
_SHORTEST = "--res"
# A resource for Snakemake: an identifier with a value.
_RESOURCE = re.compile(r"[A-Za-z_]\w*=")


def separate_targets(argv: Sequence[str]) -> list[str]:
    """Move the targets that ``--resources`` would take for resources behind a ``--``.

    A word is such a target if it follows at least one NAME=VALUE of ``--resources`` and is itself neither NAME=VALUE
    nor an option. Snakemake rejects every such command line, so no valid one is changed.

    Args:
        argv: Words of a Snakemake command line, without the program's name.

    Returns:
        The words, with the targets behind ``--`` at the end; equal to ``argv`` if there are none.
    """
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    options, explicit_targets = words[:end], words[end + 1 :]

    kept: list[str] = []
    targets: list[str] = []
    seen_option = seen_resource = seen_target = False
    for word in options:
        if word.startswith("-"):
            seen_option = _is_resources(word)
            seen_resource = seen_target = False
        elif seen_option and not seen_target:
            if _RESOURCE.match(word):
                seen_resource = True
            else:
                seen_target = seen_resource
        (targets if seen_target else kept).append(word)

    if not targets:
        return words
    return [*kept, "--", *targets, *explicit_targets]


def repair(argv: MutableSequence[str]) -> None:
    """Apply `separate_targets` in place if ``argv``, program first, is a call of Snakemake."""
    if argv and _is_snakemake(argv[0]):
        argv[1:] = separate_targets(argv[1:])


def _is_resources(word: str) -> bool:
    # argparse accepts every unambiguous beginning of an option.
    return word.startswith(_SHORTEST) and _OPTION.startswith(word)


def _is_snakemake(program: str) -> bool:
    path = PurePath(program)
    return path.stem == "snakemake" or path.parts[-2:] == ("snakemake", "__main__.py")
