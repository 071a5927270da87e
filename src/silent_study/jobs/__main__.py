"""``python -m silent_study.jobs``: train a bundle."""

import sys

from silent_study.jobs.borrowed import main

sys.exit(main())
