"""``python -m silent_study``: the command ``silent-gradients``."""

import sys

from silent_study.cli import main

sys.exit(main())
