"""Settings that compete for a log: the list tried where the user gives none, and how a candidate is written."""

from collections.abc import Iterable, Sequence

from mnar_recsys.config import Settings
from mnar_recsys.errors import ConfigError

CANDIDATES = (
    "decoder=ordinal,missing=per-level",
    "decoder=ordinal,missing=per-level,latent_size=5",
    "decoder=ordinal,missing=shared",
    "decoder=categorical,missing=per-level",
    "decoder=gaussian,missing=shared",
    "decoder=ordinal,missing=ignorable",
    "decoder=gaussian,missing=ignorable",
)
"""In the order of preference: the first of those that fit about as well is taken. It begins with the defaults, and ends
with no selection at all, which a log must speak for."""
_ON_LEVELS = ("ordinal", "categorical", "per-level")


def read_assignments(texts: Iterable[str], option: str, taken: Iterable[str] = ()) -> dict[str, str | None]:
    """Return the settings of ``key=value`` texts; a value ``none`` means none.

    Raises
    ------
    ConfigError
        If a text is anything else, or a key comes twice or is ``taken``; ``option`` is what the message says it is of.
    """
    found: dict[str, str | None] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals and value):
            raise ConfigError(f"{option} needs key=value, for example {option} latent_size=10; found {text!r}")
        if key in found or key in taken:
            raise ConfigError(f"setting '{key}' is given twice; leave one of them out")
        found[key] = None if value.lower() == "none" else value
    return found


def make_candidates(
    texts: Sequence[str] = CANDIDATES, settings: Settings | None = None, taken: Iterable[str] = ()
) -> dict[str, Settings]:
    """Return candidates by name, each ``settings`` with changes such as ``decoder=gaussian,missing=shared``.

    Parameters
    ----------
    texts : sequence of str
        Two or more, in the order of preference.
    settings : Settings, optional
        What they have in common; default: the default settings.
    taken : iterable of str
        Settings that hold for all candidates, so that none of them may change them.

    Raises
    ------
    ConfigError
        If there is only one, two have the same name, or one is not a list of known settings with values that fit.
    """
    if len(texts) < 2:
        raise ConfigError(f"a choice needs two or more candidates; found {len(texts)}. Add one, or use --set")
    base, taken = settings or Settings(), tuple(taken)
    found: dict[str, Settings] = {}
    for text in texts:
        try:
            changes = read_assignments(text.split(","), "--candidate")
            name = ",".join(f"{key}={'none' if value is None else value}" for key, value in changes.items())
            for key in changes:
                if key in taken:
                    raise ConfigError(f"setting '{key}' is given for all candidates as well; leave one of them out")
            if name in found:
                raise ConfigError("is given twice; leave one of them out")
            found[name] = base.replace(changes)
        except ConfigError as error:
            raise ConfigError(f"candidate '{text}': {error}") from error
    return found


def needs_levels(settings: Settings) -> bool:
    """Whether settings are for a scale with levels only."""
    return settings.model.decoder in _ON_LEVELS or settings.model.missing in _ON_LEVELS
