"""``python -m undrift``: the command line."""

import sys

from undrift.cli.main import main

sys.exit(main())
