"""``python -m openltx`` is the ``openltx`` command."""

import sys

from openltx.cli import main

sys.exit(main())
