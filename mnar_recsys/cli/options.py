"""Options that several verbs share, and the parsing of those that are written in a small language."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mnar_recsys.candidates import CANDIDATES, make_candidates, read_assignments
from mnar_recsys.config import DecoderName, Inference, MissingName, Settings, Sign, preset
from mnar_recsys.errors import ConfigError

Columns = Annotated[
    str | None,
    typer.Option(help="Names of the user, item and rating columns (and timestamp).", metavar="U,I,R[,T]"),
]
PairColumns = Annotated[
    str | None, typer.Option("--columns", help="Names of the user and item columns of --pairs.", metavar="U,I")
]
Layout = Annotated[
    str,
    typer.Option(help="How the file is laid out: auto, csv, parquet, recbole, yahoo-r3, coat, kuairec or movielens."),
]
Ids = Annotated[str, typer.Option(help="Read ids as whole numbers where all are (auto), or as text.")]
Duplicates = Annotated[
    str, typer.Option(help="Where a user rated an item twice: error, keep the last, or take the mean.")
]
Scale = Annotated[
    str | None,
    typer.Option(help="Rating scale: low,high or low,high,step or low,high,real; inferred if left out.", metavar="L,H"),
]
Ray = Annotated[
    str | None,
    typer.Option(
        help="Work on the cores of a Ray cluster: its address, auto on one of its machines, or local to start one.",
        metavar="ADDRESS",
    ),
]
UserFeatures = Annotated[
    Path | None, typer.Option(help="Features of users: CSV with a column user; numbers, or words as categories.")
]
ItemFeatures = Annotated[Path | None, typer.Option(help="Features of items: CSV with a column item.")]
InferenceBy = Annotated[
    Inference | None,
    typer.Option(help="variational, or mcmc: sample the whole posterior, the default for small logs (minutes)."),
]
McarLabels = Annotated[
    Path | None,
    typer.Option(help="Randomly collected ratings to train on as well; never those you will evaluate on."),
]
Catalogue = Annotated[Path | None, typer.Option(help="File with a column item: all items on offer, rated or not.")]
Eligible = Annotated[
    Path | None, typer.Option(help="Pairs on offer, columns user,item; what is not among them nobody could rate.")
]
KnownPropensities = Annotated[
    str | None,
    typer.Option(
        help="Known P(rated | rating), linear in the log-odds between; implies --missing known.", metavar="1=.02,5=.1"
    ),
]
PopulationMarginal = Annotated[
    str | None,
    typer.Option(
        help="Shares of the rating levels, lowest first, among answers about random items, if a survey told them.",
        metavar="P,P,...",
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Any other setting; repeat for more. The model's card.md lists them.", metavar="KEY=VALUE"
    ),
]
SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", help="JSON file of settings by name, such as best.json of `tune`.", metavar="FILE"),
]
Select = Annotated[
    bool,
    typer.Option(
        "--select",
        help="First choose among candidates by the joint likelihood of held-out users, no random ratings needed: "
        f"{'; '.join(CANDIDATES)}. Costs a fit each.",
    ),
]
Candidates = Annotated[
    list[str] | None,
    typer.Option(
        "--candidate",
        help="Choose among these instead; repeat, the preferred one first. Implies --select.",
        metavar="KEY=VALUE[,...]",
    ),
]
TensorBoard = Annotated[
    Path | None, typer.Option(help="Also write the terms of the bound here, for TensorBoard.", metavar="DIR")
]
RatingsFile = Annotated[
    Path, typer.Argument(help="Rating file: CSV, TSV, Parquet or a known layout.", metavar="RATINGS")
]
Preset = Annotated[str, typer.Option(help="Settings to start from: default, or yahoo-r3 (the paper's).")]
Decoder = Annotated[DecoderName | None, typer.Option(help="Distribution of a rating given a user's taste.")]
Missing = Annotated[
    MissingName | None, typer.Option(help="How the choice to rate depends on the rating (ignorable: not at all).")
]
SelectionSign = Annotated[
    Sign | None, typer.Option(help="Direction of selection; positive: people tend to rate what they like.")
]
Seed = Annotated[int, typer.Option(min=0, help="Fixes everything random.")]
ModelFolder = Annotated[Path, typer.Argument(help="Model folder that `train` wrote.", metavar="MODEL")]


def split_names(text: str | None, option: str, counts: Sequence[int]) -> tuple[str, ...] | None:
    """Return the names in ``a,b,c``; refuse another number of them than ``counts`` allows."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if len(names) not in counts or not all(names):
        allowed = " or ".join(map(str, counts))
        raise ConfigError(f"{option} needs {allowed} names with commas between them; found {text!r}")
    return names


def model_options(
    *,
    decoder: str | None,
    missing: str | None,
    sign: str | None,
    inference: str | None = None,
    known_propensities: str | None = None,
    population_marginal: str | None = None,
    settings_file: Path | None = None,
) -> dict[str, Any]:
    """Return by name the settings that options give, those in the file among them.

    Raises
    ------
    ConfigError
        If an option is not written as it should be, or a setting is in the file as well.
    """
    points = parse_propensities(known_propensities)
    options = {
        "decoder": decoder,
        "missing": "known" if points and missing is None else missing,
        "sign": sign,
        "inference": inference,
        "known_propensities": points,
        "population_marginal": parse_shares(population_marginal),
    }
    given = {key: value for key, value in options.items() if value is not None}
    if settings_file is None:
        return given
    stored = read_settings_file(settings_file)
    for key in given:
        if key in stored:
            raise ConfigError(f"setting '{key}' is given twice, in {settings_file} as well; leave one of them out")
    return given | stored


def read_settings_file(path: Path) -> dict[str, Any]:
    """Return the settings in a JSON file, by name; raise ConfigError if it is none, or one is unknown or out of range.

    What a file leaves out is as it is; ``null`` means none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; name the best.json of a search, or a file like it") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error}); write one as `tune` does") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: must hold settings by name, as {{...}}; found {type(found).__name__}")
    try:
        Settings().replace(found)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return found


def make_settings(preset_name: str, options: Mapping[str, Any], assignments: Sequence[str]) -> Settings:
    """Return the preset with options and ``key=value`` assignments on top; a value ``none`` means none.

    Raises
    ------
    ConfigError
        If the preset or a key is unknown, a value does not fit, or something is said twice.
    """
    return preset(preset_name).replace({**options, **read_assignments(assignments, "--set", options)})


def parse_candidates(
    select: bool,
    texts: Sequence[str] | None,
    settings: Settings,
    options: Mapping[str, Any],
    assignments: Sequence[str],
) -> dict[str, Settings] | None:
    """Return the candidates of ``--candidate`` by name, none where the list is to be the default one.

    None where no choice is wanted. ``options`` and ``assignments`` are what ``settings`` were made of.

    Raises
    ------
    ConfigError
        If a candidate is not what it should be, or changes a setting that was given for all of them.
    """
    if not (select or texts):
        return None
    given = (*options, *read_assignments(assignments, "--set"))
    found = make_candidates(texts or CANDIDATES, settings, given)
    return found if texts else {}


def parse_propensities(text: str | None) -> tuple[tuple[float, float], ...] | None:
    """Return the (rating, propensity) pairs of ``1=.02,2=.03``; raise ConfigError for anything else."""
    if text is None:
        return None
    try:
        pairs = [part.split("=") for part in text.split(",")]
        points = tuple((float(rating), float(propensity)) for rating, propensity in pairs)
    except ValueError:
        points = ()
    if len({rating for rating, _ in points}) < max(2, len(points)):
        raise ConfigError(
            f"--known-propensities needs rating=propensity for at least two different ratings, for example "
            f"1=.02,5=.1; found {text!r}"
        )
    return points


def parse_shares(text: str | None) -> tuple[float, ...] | None:
    """Return the shares of ``.5,.3,.2``; raise ConfigError for anything else."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--population-marginal needs shares with commas between them, such as .5,.25,.15,.06,.04; found {text!r}"
        ) from error
