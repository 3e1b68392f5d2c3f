"""Which items stand for all of them in a step: systematic sampling with unequal probabilities."""

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.config import FEW_ITEMS, Settings
from mnar_recsys.errors import ConfigError

# So many items where there are more than FEW_ITEMS.
DEFAULT_SIZE = 600
# Share of the sample spread evenly over the items, whatever their popularity.
_EVEN_SHARE = 0.5


Sample = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Items, rising, and their weights, (M,) each."""


class ItemSampler:
    """Draw M of P items, each with a known probability, and weight them by its inverse (Horvitz & Thompson 1952).

    What an unrated cell adds to the bound is about as large as the item's odds of being rated, so items are drawn in
    proportion to their number of ratings: the products with the weights then hardly vary. Half the sample is drawn
    evenly, which bounds the weights of items that the number of ratings says little about (a defensive mixture;
    Hesterberg 1995). Items that would be drawn more than once are always there. The others stand in the order of their
    popularity and are drawn systematically, which is to stratify by it, as finely as possible (Madow 1949).

    Parameters
    ----------
    counts : ndarray
        (P,) ratings of each item.
    size : int
        Items M in a sample, at least 1; all of them if there are no more.
    """

    def __init__(self, counts: NDArray[np.integer], size: int) -> None:
        self._order = np.argsort(-counts, kind="stable")
        self.probabilities = inclusion_probabilities(counts, size)
        self._cumulative = np.cumsum(self.probabilities[self._order])
        self.size = min(size, len(counts))

    def draw(self, uniform: float) -> Sample:
        """Return the items, rising, and their weights, (M,) each, from one number in [0, 1)."""
        points = np.arange(self.size) + uniform
        # The sum of the probabilities is M but for rounding; the last point stays inside.
        place = np.searchsorted(self._cumulative, np.minimum(points, self._cumulative[-1] - 1e-9), side="right")
        items = np.sort(self._order[place])
        return items, (1 / self.probabilities[items]).astype(np.float32)


def inclusion_probabilities(counts: NDArray[np.integer], size: int) -> NDArray[np.float64]:
    """Return the probability that each item is in a sample of ``size``: (P,), summing to it, none above 1."""
    n_items = len(counts)
    if size >= n_items:
        return np.ones(n_items)
    total = max(float(counts.sum()), 1.0)
    weight = _EVEN_SHARE / n_items + (1 - _EVEN_SHARE) * counts / total
    weight /= weight.sum()
    certain = np.zeros(n_items, dtype=bool)
    while True:
        left = size - certain.sum()
        share = np.where(certain, 0.0, weight)
        probabilities = np.where(certain, 1.0, left * share / share.sum())
        above = probabilities > 1
        if not above.any():
            return probabilities
        certain |= above


def with_rated(
    rated: NDArray[np.integer], *samples: Sample
) -> tuple[NDArray[np.int64], tuple[NDArray[np.float32], ...]]:
    """Join the items that a batch has rated to those drawn.

    Items (I,), rising, and for each sample weights (I,), 0 where it has not drawn the item.
    """
    items = np.unique(np.concatenate([rated, *(drawn for drawn, _ in samples)]))
    joined = []
    for drawn, weights in samples:
        joined.append(np.zeros(len(items), dtype=np.float32))
        joined[-1][np.searchsorted(items, drawn)] = weights
    return items, tuple(joined)


def sample_size(settings: Settings, n_items: int) -> int | None:
    """Return how many items a step draws, or None for all.

    Raises
    ------
    ConfigError
        If a number is set where it cannot be.
    """
    wanted, model = settings.training.sampled_items, settings.model
    needs_all = (
        model.item_weights == "variational" or model.population_marginal is not None or model.missing == "agnostic"
    )
    if wanted == "all" or (wanted == "auto" and (needs_all or n_items <= FEW_ITEMS)):
        return None
    if needs_all:
        raise ConfigError(
            "sampled_items needs item_weights='point', no population_marginal and a missing model of single cells; "
            "set sampled_items='all'"
        )
    return DEFAULT_SIZE if wanted == "auto" else min(wanted, 2 * n_items)
