"""``python -m medvol`` is ``medvol``."""

import sys

from medvol.cli import main

sys.exit(main())
