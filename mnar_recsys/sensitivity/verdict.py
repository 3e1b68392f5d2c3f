"""What a profile of the selection comes to, in words."""

import math
from dataclasses import dataclass

TOP_N = 10
"""How many of the best unrated items of a person are compared."""
PLAUSIBLE = 1.92
"""Nats that a 95 % likelihood interval for one parameter allows below the best (half the quantile of chi square, 1)."""

# Nats by which fits of one quality can differ, since training is cut short.
_UNFINISHED = 10.0
_ABSORBED = (
    "In this model the taste also decides who meets what, which can absorb a shift of the rating level at almost no "
    "cost in likelihood: whatever the profile shows, the level rests on the priors, the stated sign, and randomly "
    "collected ratings where there are any."
)


@dataclass(frozen=True)
class ProfilePoint:
    """The fit with the selection held at one value."""

    selection: float
    """nats between the ends of the scale; positive: people rate what they like"""
    relative: float
    """log-likelihood of all users less that of the best point, in nats, never above 0"""
    relative_se: float
    """standard error of that over users: of held-out ones; in sample where not all of them were used, or the best point
    has the opposite sign"""
    mean: float
    """predicted mean of unrated cells, rating points"""
    marginal: tuple[float, ...] | None
    """predicted shares of the levels among them, (R,)"""
    overlap: float
    """share of the best unrated items of a user, TOP_N, that are also among the best of the fitted model"""
    law_gap: float = math.inf
    """nats, over the whole log, between what the fitted model and the nearest one with this selection say that a log
    shows, priors left out"""
    start: str = "fitted"
    """where the best of its fits started: ``fitted``, ``nearest law`` or ``fresh``"""

    @property
    def fits(self) -> bool:
        """Whether it fits as well: within PLAUSIBLE of the best, or within two standard errors of that."""
        return self.relative + PLAUSIBLE + 2 * self.relative_se >= 0


@dataclass(frozen=True)
class Profile:
    """Points by rising selection, and the fitted selection."""

    points: tuple[ProfilePoint, ...]
    fitted: float
    taste_is_exposed: bool = False
    """whether the taste decides who meets what, too (``exposure_sees_taste``)"""
    in_sample: bool = True
    """whether the users that a fit was made on judge it, less what weights cost under their priors, or held-out ones"""

    @property
    def plausible(self) -> tuple[ProfilePoint, ...]:
        """Points that the log does not speak against.

        They fit as well, or a model with that selection says the same of such a log as the fitted one, to within
        PLAUSIBLE, and that one fits well itself.
        """
        reach = PLAUSIBLE if self._behind() <= _UNFINISHED else -math.inf
        return tuple(point for point in self.points if point.fits or point.law_gap <= reach)

    def _behind(self) -> float:
        """Return by how many nats the point nearest to the fitted selection is behind the best, errors allowed for."""
        nearest = min(self.points, key=lambda point: abs(point.selection - self.fitted))
        return -(nearest.relative + 2 * nearest.relative_se)

    def verdict(self) -> str:
        """Return in words what this log tells of the selection, and what it changes."""
        kept = self.plausible
        means = [point.mean for point in kept]
        overlap = f"{min(point.overlap for point in kept):.0%} of each person's top {TOP_N} stay."
        effect = (
            f"There the predicted mean of unrated cells is {means[0]:.2f}, and {overlap}"
            if len(kept) == 1
            else f"Over these the predicted mean of unrated cells goes from {min(means):.2f} to {max(means):.2f}, and "
            f"at least {overlap}"
        )
        remarks = [_ABSORBED] if self.taste_is_exposed else []
        first = []
        if self._behind() > _UNFINISHED:
            first = ["The fitted selection is far from the best one found: train longer, or with another --seed."]
        return " ".join([*first, self._finding(), effect, *remarks])

    def _finding(self) -> str:
        kept = self.plausible
        low, high = kept[0].selection, kept[-1].selection
        at_end = low == self.points[0].selection or high == self.points[-1].selection
        span = f"{self._span(kept)} nats between the ends of the scale"
        span += ", and perhaps values beyond those tried" if at_end else ""
        if self.fitted == 0 and _both_signs(kept) and not at_end:
            return (
                f"No selection by the rating, as far as this log tells: it goes with selections {span}, fits worse "
                "with the others tried, and none was fitted."
            )
        if low == high == 0:
            return (
                "Not identified: this log fits best with no selection by the rating at all, and every other value "
                "tried fits worse. What the fitted one changes rests on the stated sign and the priors."
            )
        if _both_signs(kept):
            fitting = tuple(point for point in kept if point.fits)
            why = (
                "this log fits as well with no selection, or with either sign"
                if _both_signs(fitting)
                else "a model with no selection, or with the other sign, says the same of what such a log shows, and "
                "only priors set it apart"
            )
            rests = "the stated sign and the priors" if self.fitted else "there being none, which is what was fitted"
            return (
                f"Not identified: {why}. It goes with selections {span}. The predictions rest on {rests}; only "
                "randomly collected ratings (--mcar-labels) would settle it."
            )
        sign = "what they like" if low > 0 else "what they dislike"
        if at_end or high - low > 0.5 * abs(high + low):
            return f"Weakly identified: people rate {sign}, but how strongly is open, {span}."
        return f"Identified, if decoder and missing model have the right form: people rate {sign}, {span}."

    def _span(self, kept: tuple[ProfilePoint, ...]) -> str:
        """Return the ends of the kept points, or all of them where others lie between."""
        between = [p for p in self.points if kept[0].selection <= p.selection <= kept[-1].selection]
        if len(between) > len(kept):
            values = [f"{point.selection:+.2f}" for point in kept]
            return f"of {', '.join(values[:-1])} and {values[-1]}"
        if len(kept) == 1:
            return f"near {kept[0].selection:+.2f}"
        return f"from {kept[0].selection:+.2f} to {kept[-1].selection:+.2f}"


def _both_signs(points: tuple[ProfilePoint, ...]) -> bool:
    """Return whether no selection, or selections of both signs, are among the points."""
    return points[0].selection <= 0 <= points[-1].selection
