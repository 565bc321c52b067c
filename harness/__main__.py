"""``python -m harness`` is ``detbench``."""

import sys

from harness.cli import main

sys.exit(main())
