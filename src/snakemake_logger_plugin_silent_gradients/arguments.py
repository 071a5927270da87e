"""Keep ``--resources`` from swallowing the targets after it.

In ``snakemake --cores 8 --resources gpu=8 all``, ``--resources`` takes every word up to the next option, so Snakemake
fails at ``all``, which is no NAME=VALUE, before it reads the Snakefile. Logger plugins are imported before the
arguments are parsed, early enough to move the targets.
"""

import re
from collections.abc import MutableSequence, Sequence
from pathlib import PurePath

# A resource for Snakemake: an identifier with a value.
_RESOURCE = re.compile(r"[A-Za-z_]\w*=")


def separate_targets(argv: Sequence[str]) -> list[str]:
    """Move the targets that ``--resources`` would take for resources behind a ``--``.

    A word is such a target if it follows at least one NAME=VALUE of ``--resources`` and is itself neither NAME=VALUE
    nor an option. Snakemake rejects every such command line, so no valid one is changed.

    ``argv`` are the words of a command line without the program's name; without such a target they stay as they are.
    """
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    options, explicit_targets = words[:end], words[end + 1 :]

    kept: list[str] = []
    targets: list[str] = []
    after = ""
    for word in options:
        if word.startswith("-"):
            # argparse accepts every unambiguous beginning of an option.
            after = "option" if word.startswith("--res") and "--resources".startswith(word) else ""
        elif after == "option" and _RESOURCE.match(word):
            after = "resource"
        elif after == "resource" and not _RESOURCE.match(word):
            after = "target"
        (targets if after == "target" else kept).append(word)
    return [*kept, "--", *targets, *explicit_targets] if targets else words


def repair(argv: MutableSequence[str]) -> None:
    """Apply `separate_targets` in place if ``argv``, program first, is a call of Snakemake."""
    path = PurePath(argv[0] if argv else "")
    if path.stem == "snakemake" or path.parts[-2:] == ("snakemake", "__main__.py"):
        argv[1:] = separate_targets(argv[1:])
