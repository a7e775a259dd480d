"""``python -m uxdp_cc``."""

import sys

from .cli import main

sys.exit(main())
