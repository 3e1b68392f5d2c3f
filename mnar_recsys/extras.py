"""Packages that only some of the work needs."""

from importlib.util import find_spec

from mnar_recsys.errors import ConfigError


def check_extra(package: str, extra: str, purpose: str) -> None:
    """Raise ConfigError, with what to install, if a package of an extra is not there."""
    if find_spec(package) is None:
        raise ConfigError(f"{purpose} needs the package {package}; install it: pip install 'mnar-recsys[{extra}]'")
