"""Settings of the model: decoder, missing model, sizes, priors."""

from typing import Literal, Self

from pydantic import Field, model_validator

from mnar_recsys.config.base import FrozenSettings

DecoderName = Literal["auto", "ordinal", "categorical", "gaussian", "student-t"]
MissingName = Literal["auto", "ignorable", "shared", "per-item", "per-level", "known", "agnostic"]
Sign = Literal["positive", "negative", "free"]
EstimatorName = Literal["auto", "marginal", "sampled"]

SMALL_LOG = 10_000
"""Ratings below which a log is small: the items' weights get a posterior, the exposure sees the taste."""

FEW_ITEMS = 3_000
"""Items up to which a training step sums over all of them; of more it draws some."""


class ModelConfig(FrozenSettings):
    """The parts of the model and their sizes (symbols of the paper in brackets)."""

    decoder: DecoderName = "auto"
    """p(x|z): `ordinal` (cumulative logit), `categorical` (one probability a level), `gaussian` (a mean that is a
    sigmoid) or `student-t` (the same with heavier tails). `auto`: ordinal on rating levels, else gaussian."""
    missing: MissingName = "auto"
    """p(s|x): one slope for all items (`shared`), one each (`per-item`), one weight a rating level (`per-level`),
    a given mechanism (`known`), a map of all the person's ratings (`agnostic`), or none (`ignorable`, which is MIWAE).
    `auto`: shared with a gaussian or student-t decoder, else per-level."""
    sign: Sign = "positive"
    """Direction of selection: `positive` if people tend to rate what they like. For `per-level`: monotone."""
    estimator: EstimatorName = "auto"
    """The missing ratings are summed out exactly (`marginal`) or drawn (`sampled`, as in the paper). `auto`: marginal,
    unless the missing model is agnostic, where that cannot be done."""
    user_activity: bool = True
    """Give every user a latent activity that raises or lowers all their log-odds of rating."""
    exposure_size: int = Field(default=6, ge=0, le=1024)
    """Size of a latent of the user that decides, with weights of the items, who meets what whatever the rating."""
    exposure_sees_taste: Literal["auto"] | bool = "auto"
    """Whether the taste, too, decides who meets what: what people rated at all then says something of their taste.
    `auto`: below 10,000 ratings, where there is little else to go by."""
    latent_size: int = Field(default=10, ge=1, le=1024)
    """Size of the latent taste z [K]."""
    embedding_size: int = Field(default=20, ge=1, le=4096)
    """Size of an item's embedding in the encoder."""
    code_size: int = Field(default=50, ge=1, le=4096)
    """Size of the code summed over a user's ratings in the encoder."""
    posterior_scale: Literal["shared", "per-user"] = "per-user"
    """Standard deviation of q(z|x): one vector for all users (the paper's), or encoded for each."""
    gaussian_variance: Literal["shared", "per-item"] = "shared"
    """Observation variance of the Gaussian and the Student-t decoder."""
    student_df: float | None = Field(default=None, gt=2, le=500)
    """Degrees of freedom of the Student-t decoder; none: learned, one number for all items."""
    mean_margin: float = Field(default=0.5, ge=0, le=10)
    """How far the mean of these two decoders may leave the scale, in rating steps (tenths of a scale without steps): a
    rating stands for all values that round to it. 0 is the paper's."""
    item_weights: Literal["auto", "variational", "point"] = "auto"
    """Weights of the items, in decoder and exposure: points (the paper's), or with a Gaussian variational posterior and
    learned prior scales. `auto`: variational where a step sums the missing ratings of all items out, and below
    10,000 ratings: errors are a twentieth lower on simulated logs."""
    weight_prior_sd: float | None = Field(default=0.5, gt=0)
    """Standard deviation of a Gaussian prior on the decoder's weights (MAP); none as in the paper."""
    bias_prior_sd: float | None = Field(default=0.5, gt=0)
    """The same for the decoder's biases of the items, around their mean."""
    exposure_prior_sd: float | None = Field(default=0.5, gt=0)
    """The same for the weights of the exposure."""
    selection_prior_sd: float | None = Field(default=0.5, gt=0)
    """Where a sign is stated: standard deviation of the log of the selection between the ends of the scale, whose prior
    median is 1.2 nats (.3 a star). On small logs it decides where the ratings do not."""
    side_information: bool = True
    """Whether features of users and items, where the log has any, decide where their parameters are expected."""
    feature_prior_sd: float = Field(default=0.5, gt=0)
    """Standard deviation of a Gaussian prior on the maps from features (MAP)."""
    survey_could_be_rated: bool = True
    """Whether people asked in a survey could have rated these items by choice, and did not; false where they were asked
    before the log began, or about what was not on offer."""
    population_marginal: tuple[float, ...] | None = None
    """Shares of the rating levels, rising, among what people would say of randomly chosen items, where a survey told
    these and nothing else. Weaker than the answers themselves."""
    population_size: int = Field(default=1000, ge=1)
    """How many answers stand behind `population_marginal`."""
    gumbel_temperature: float = Field(default=0.5, gt=0)
    """Temperature of the Gumbel-softmax draws of the sampled estimator on levels."""
    quadrature_nodes: int = Field(default=8, ge=2, le=64)
    """Gauss-Hermite nodes of the marginal estimator with a Gaussian decoder; 8 keep log E[1 - pi] within 1e-5 for
    slopes up to 1 a standard deviation of the rating, and within 4e-4 up to 1.5."""
    agnostic_hidden: int = Field(default=0, ge=0, le=1024)
    """Hidden units of the agnostic missing model; 0: a linear map, with a weight for each pair of items."""
    agnostic_prior_sd: float | None = Field(default=0.5, gt=0)
    """Standard deviation of a Gaussian prior on what that map adds to the log-odds of rating an item (MAP)."""
    known_propensities: tuple[tuple[float, float], ...] | None = None
    """(rating, P(rated | rating)) pairs of the `known` missing model, linear in the log-odds between them."""
    known_adjust: bool = False
    """Learn a rising affine map of the known log-odds, with a bias for each item, on top of them."""

    def resolve(self, *, has_levels: bool, n_ratings: int, all_items: bool) -> Self:
        """Return the settings with every ``auto`` decided.

        By the log, whether its scale has levels, and its size, and by whether training steps sum over ``all_items``.
        """
        decoder, missing = self.decoder, self.missing
        if decoder == "auto":
            decoder = "ordinal" if has_levels else "gaussian"
        if missing == "auto":
            missing = "shared" if decoder in ("gaussian", "student-t") else "per-level"
        estimator = self.estimator
        if estimator == "auto":
            estimator = "sampled" if missing == "agnostic" else "marginal"
        is_small = n_ratings < SMALL_LOG
        weights, sees_taste = self.item_weights, self.exposure_sees_taste
        if weights == "auto":
            weights = "variational" if is_small or (estimator == "marginal" and all_items) else "point"
        if sees_taste == "auto":
            sees_taste = is_small
        decided = {
            "decoder": decoder, "missing": missing, "estimator": estimator,
            "item_weights": weights, "exposure_sees_taste": sees_taste,
        }  # fmt: skip
        return self.model_copy(update=decided)

    @model_validator(mode="after")
    def _rows_are_drawn(self) -> Self:
        if self.missing == "agnostic" and self.estimator == "marginal":
            raise ValueError(
                "missing='agnostic' has no marginal form: what is missing in a row must be drawn. Set "
                "estimator='sampled' (--set estimator=sampled), or leave the estimator out"
            )
        return self

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> Self:
        shares = self.population_marginal
        if shares is not None and (min(shares, default=-1) < 0 or abs(sum(shares) - 1) > 0.01):
            shown = ", ".join(f"{share:g}" for share in shares)
            raise ValueError(
                f"population_marginal must be shares of 0 or more that sum to 1; found {shown}, which sum to "
                f"{sum(shares):g}. Give a share for each level, lowest first"
            )
        return self

    @model_validator(mode="after")
    def _known_mechanism_is_given(self) -> Self:
        if (self.missing == "known") != (self.known_propensities is not None):
            given = "none" if self.known_propensities is None else "some"
            raise ValueError(
                f"known_propensities go with missing 'known', and only with it; found {given} with missing "
                f"'{self.missing}'. Give both, or leave both out"
            )
        ratings = [rating for rating, _ in self.known_propensities or ()]
        if self.known_propensities is not None and (len(ratings) < 2 or len(set(ratings)) < len(ratings)):
            raise ValueError(f"known_propensities must be given at two or more different ratings; found {ratings}")
        for rating, propensity in self.known_propensities or ():
            if not 0 < propensity < 1:
                raise ValueError(
                    f"propensity of rating {rating:g} must lie strictly between 0 and 1; found {propensity:g}"
                )
        return self
