"""``python -m mnar_recsys`` is the ``mnar-recsys`` command."""

import sys

from mnar_recsys.cli.main import main

sys.exit(main())
