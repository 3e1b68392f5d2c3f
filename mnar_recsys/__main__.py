"""``python -m mnar_recsys`` is the ``mnar-recsys`` command."""

from mnar_recsys.cli.main import main

main()
