"""``python -m silent_gradients``: the same as the command ``silent-gradients``."""

import sys

from silent_gradients.cli import main

sys.exit(main())
