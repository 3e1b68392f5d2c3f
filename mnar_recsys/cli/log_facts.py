"""What `inspect` says of a log, as text."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from mnar_recsys.cli.terminal import facts, table
from mnar_recsys.data import RatingLog

_BAR = 40
_FEW = 3
_MANY = 5


def describe_log(log: RatingLog) -> str:
    """Return sizes, marginal, ratings of one user and one item, signs of selection, and problems."""
    problems = "\n".join(f"- {text}" for text in _problems(log) or ["none found"])
    return (
        f"{_sizes(log)}\n\nGiven ratings\n{_marginal(log)}\n\nRatings of one user, of one item\n{_counts(log)}\n\n"
        f"Signs of selection\n{_signs(log)}\n\nProblems\n{problems}"
    )


def _sizes(log: RatingLog) -> str:
    return facts(
        [
            ("ratings", f"{log.n_ratings:,}"),
            ("users", f"{log.n_users:,}"),
            ("items", f"{log.n_items:,}"),
            ("density", f"{log.n_ratings / (log.n_users * log.n_items):.3%} of all cells"),
            ("scale", log.scale.describe()),
            ("mean", f"{log.values.mean():.3f} (standard deviation {log.values.std():.3f})"),
        ]
    )


def _marginal(log: RatingLog) -> str:
    """Return text bars of the shares of the levels, or of ten intervals of a real scale."""
    levels = log.scale.levels
    if levels is not None and len(levels) <= 2 * _BAR:
        counts = np.bincount(log.scale.level_index(log.ratings), minlength=len(levels))
        names = [f"{level:g}" for level in levels]
    else:
        counts, ends = np.histogram(log.values, bins=10, range=(log.scale.low, log.scale.high))
        names = [f"{low:g} to {high:g}" for low, high in pairwise(ends.tolist())]
    shares = counts / counts.sum()
    width = max(map(len, names))
    bars = ["#" * round(_BAR * share / shares.max()) for share in shares]
    lines = (f"{name:>{width}}  {share:6.1%}  {bar}" for name, share, bar in zip(names, shares, bars, strict=True))
    return "\n".join(line.rstrip() for line in lines)


def _counts(log: RatingLog) -> str:
    shares = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
    rows = [
        [label, *(f"{value:,.0f}" for value in np.quantile(counts, shares)), f"{counts.mean():,.1f}"]
        for label, counts in (("user", _per_user(log)), ("item", _per_item(log)))
    ]
    return table(["of one", "least", "5 %", "25 %", "median", "75 %", "95 %", "most", "mean"], rows)


def _signs(log: RatingLog) -> str:
    """Return correlations that selection leaves behind, and what they cannot say."""
    at_ends = float(np.mean((log.values == log.scale.low) | (log.values == log.scale.high)))
    lines = [
        ("popular items, higher ratings?", _rank_correlation(_per_item(log), log.items, log)),
        ("active users, higher ratings?", _rank_correlation(_per_user(log), log.rows, log)),
        ("ratings at the ends of the scale", f"{at_ends:.1%}" + _even_share(log)),
    ]
    return facts(lines) + (
        "\nA positive correlation is what selection by liking leaves behind, but so does quality that draws a crowd;"
        "\nmany ratings at the ends can be strong opinions speaking up, or simply strong opinions. The log alone cannot"
        "\ntell: `train` fits the selection under assumptions, a random survey of ratings (`evaluate`) checks them."
    )


def _even_share(log: RatingLog) -> str:
    return f" (even use of the levels: {2 / log.scale.n_levels:.1%})" if log.scale.n_levels else ""


def _rank_correlation(counts: NDArray[np.int64], group: NDArray[np.int32], log: RatingLog) -> str:
    """Spearman's correlation of the number of ratings with their mean, with Fisher's 95 % interval."""
    kept = counts >= _FEW
    means = np.bincount(group, log.values, len(counts))[kept] / counts[kept]
    if kept.sum() <= _MANY or np.ptp(counts[kept]) == 0 or np.ptp(means) == 0:
        return f"not enough to tell (too few with {_FEW} ratings, or all alike)"
    value = float(spearmanr(counts[kept], means).statistic)
    half = 1.96 / np.sqrt(kept.sum() - 3)
    low, high = np.tanh(np.arctanh(np.clip(value, -0.999999, 0.999999)) + np.array([-half, half]))
    return f"rank correlation {value:+.2f} [{low:+.2f}, {high:+.2f}], from {kept.sum():,} with {_FEW} or more ratings"


def _problems(log: RatingLog) -> list[str]:
    by_user, by_item = _per_user(log), _per_item(log)
    found = [
        (int((by_item == 0).sum()), "items without any rating: predicted from the prior (cold)"),
        (int((by_user == 0).sum()), "users without any rating: predicted from the prior (cold)"),
        (
            int(((by_item > 0) & (by_item < _FEW)).sum()),
            f"items with fewer than {_FEW} ratings: their predictions lean on the other items",
        ),
        (
            int(((by_user > 0) & (by_user < _FEW)).sum()),
            f"users with fewer than {_FEW} ratings: their predictions lean on the other users",
        ),
        (_constant_users(log), f"users with {_MANY} or more ratings that are all the same: careless, or a robot?"),
    ]
    texts = [f"{count:,} {text}" for count, text in found if count]
    if log.scale.levels is not None:
        unused = np.setdiff1d(np.arange(len(log.scale.levels)), log.scale.level_index(log.ratings))
        if len(unused):
            named = ", ".join(f"{level:g}" for level in log.scale.levels[unused])
            texts.append(f"nobody gave {named}: is the scale right?")
    if log.n_ratings < 5000:
        texts.append(f"only {log.n_ratings:,} ratings: expect wide intervals")
    return texts


def _constant_users(log: RatingLog) -> int:
    counts = _per_user(log)
    rated = np.flatnonzero(counts)
    starts = log.indptr[rated]
    spread = np.maximum.reduceat(log.ratings, starts) - np.minimum.reduceat(log.ratings, starts)
    return int(((spread == 0) & (counts[rated] >= _MANY)).sum())


def _per_user(log: RatingLog) -> NDArray[np.int64]:
    return np.diff(log.indptr)


def _per_item(log: RatingLog) -> NDArray[np.int64]:
    return np.bincount(log.items, minlength=log.n_items)
