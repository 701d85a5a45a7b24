"""``python -m clipper_serving``."""

import sys

from .cli import main

sys.exit(main())
