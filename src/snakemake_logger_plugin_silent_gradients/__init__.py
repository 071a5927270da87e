"""Snakemake logger plugin: progress, and a repair of the command line.

Snakemake finds the package by the prefix of its name and imports it at every start; ``logger: [silent-gradients]`` in
profiles/default switches the display on.
"""

import sys

from .arguments import repair
from .handler import LogHandler

__all__ = ["LogHandler"]

repair(sys.argv)
