"""``python -m silent_study.jobs``: train a bundle on a borrowed machine, see ``borrowed.py``."""

import sys

from silent_study.jobs.borrowed import main

sys.exit(main())
