"""Settings: frozen, validated, unknown keys refused. Every field says what it does."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mnar_recsys.data import RatingLog
from mnar_recsys.errors import ConfigError

DecoderName = Literal["auto", "ordinal", "categorical", "gaussian", "student-t"]
MissingName = Literal["auto", "ignorable", "shared", "per-item", "per-level", "known", "agnostic"]
Sign = Literal["positive", "negative", "free"]
EstimatorName = Literal["auto", "marginal", "sampled"]
Stop = Literal["auto", "held-out", "converged", "never"]
Inference = Literal["auto", "variational", "mcmc"]
CompileMode = Literal["auto", "on", "off"]

LEAST_STEPS_BETWEEN_LOOKS = 50
SMALL_LOG = 10_000
"""Ratings below which a log is small: the items' weights get a posterior, the exposure sees the taste."""
SAMPLED_CELLS = 200_000
"""Cells (users times items) up to which the posterior of a small log is sampled by default: some minutes."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelConfig(_Settings):
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
    learned prior scales. `auto`: variational below 10,000 ratings, where it has the higher held-out bound."""
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

    def resolve(self, *, has_levels: bool, n_ratings: int) -> Self:
        """Return the settings with every ``auto`` decided by the log: whether its scale has levels, and its size."""
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
            weights = "variational" if is_small else "point"
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
            raise ValueError(f"population_marginal must be shares that sum to 1; found {shares}")
        return self

    @model_validator(mode="after")
    def _known_mechanism_is_given(self) -> Self:
        if (self.missing == "known") != (self.known_propensities is not None):
            raise ValueError("known_propensities must be given with missing='known', and only then")
        ratings = [rating for rating, _ in self.known_propensities or ()]
        if self.known_propensities is not None and (len(ratings) < 2 or len(set(ratings)) < len(ratings)):
            raise ValueError(f"known_propensities must be given at two or more different ratings; found {ratings}")
        for rating, propensity in self.known_propensities or ():
            if not 0 < propensity < 1:
                raise ValueError(
                    f"propensity of rating {rating:g} must lie strictly between 0 and 1; found {propensity:g}"
                )
        return self


class TrainingConfig(_Settings):
    """How the bound is maximised. A step is one update on one batch of users."""

    samples: int = Field(default=10, ge=1)
    """Importance samples a user in training [S; the paper's K]."""
    batch_size: int = Field(default=100, ge=1)
    """Users in a batch [B]."""
    learning_rate: float = Field(default=1e-2, gt=0)
    """Adam's step size."""
    average_decay: float = Field(default=0.99, ge=0, lt=1)
    """Weights are judged and kept as their exponential moving average over the steps, with this decay a step (0: as
    they are, the paper's): the noise of the last steps averages out. Not with drawn items: a step moves few of them."""
    slope_rate: float = Field(default=10.0, gt=0)
    """How many times this the step size of the slopes of the missing model is: one number that moves all others, it is
    the slowest to converge, and with weights that are points these overfit before it has. 1 in the paper."""
    max_steps: int = Field(default=20_000, ge=1)
    """Stop after this many steps at the latest."""
    stop: Stop = "auto"
    """When to stop before `max_steps`: when the joint bound of `held-out` users no longer rises, keeping the best
    weights; when the bound has `converged` on the users trained on, which are then all users; or `never`. `auto`:
    converged where the items' weights are variational, since these do not overfit, else held-out."""
    holdout_share: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the users held out for stopping."""
    holdout_max: int = Field(default=1000, ge=1)
    """At most this many users are held out."""
    validation_samples: int = Field(default=30, ge=1)
    """Importance samples a held-out user."""
    sampled_items: Literal["auto", "all"] | Annotated[int, Field(ge=1)] = "auto"
    """Items of the missing-entry term in a training step: `all`, or so many, in two samples drawn anew for each step.
    `auto`: all up to 3,000 items and where the items' weights are variational, else 200."""
    evaluate_every: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Steps between two looks at the bound; a checkpoint is written at each. `auto`: 50, and at least a quarter of a
    pass over the users."""
    patience: int = Field(default=4, ge=1)
    """Looks without a better bound before the learning rate is cut, or training stops."""
    rate_cuts: int = Field(default=2, ge=0)
    """How often the learning rate is divided by 4 before training stops."""
    gradient_clip: float = Field(default=10.0, gt=0)
    """Largest norm of the gradient of the bound of a user."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` runs the matrix products in mixed precision."""
    compile: CompileMode = "auto"
    """Make one compiled loop of each sum over cells (TorchInductor): `on`, `off`, or `auto`: on the CPU, where there is
    a C++ compiler and the fit is long enough to make up for the ten seconds that compiling takes."""
    device: str = "auto"
    """`auto` (CUDA if there is one), `cpu`, `cuda`, `cuda:1`, ..."""
    inference: Inference = "auto"
    """`variational`: the bound is maximised, no more. `mcmc`: after a few steps of that, the posterior of all weights
    and users is sampled by the No-U-Turn sampler. `auto`: `mcmc` for small logs of up to 200,000 cells (users times
    items) where other settings allow it: there it is the more accurate of the two."""
    mcmc_start: int = Field(default=200, ge=1)
    """Steps of the variational fit that the chains of `mcmc` start from. A short one: once converged it has switched
    off what a chain then takes long to find again."""
    mcmc_chains: int = Field(default=2, ge=1)
    """Chains of `mcmc`, one after another, each from a start of its own; one alone cannot show that it is stuck."""
    mcmc_warmup: int = Field(default=120, ge=20)
    """Draws of a chain that find its step size and scales, and are thrown away."""
    mcmc_draws: int = Field(default=200, ge=20)
    """Draws of a chain after that."""
    mcmc_kept: int = Field(default=200, ge=1)
    """Draws kept for predictions, evenly spaced over all chains."""

    @property
    def most_steps(self) -> int:
        """Steps of the variational fit at most: of one that chains start from, few."""
        return min(self.max_steps, self.mcmc_start) if self.inference == "mcmc" else self.max_steps


class Settings(_Settings):
    """Everything that decides a fit, apart from the data and the seed."""

    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _can_be_sampled(self) -> Self:
        if self.training.inference == "mcmc":
            for key, found, needed in (
                ("item_weights", self.model.item_weights, "variational"),
                ("estimator", self.model.estimator, "marginal"),
            ):
                if found not in ("auto", needed):
                    raise ValueError(f"inference 'mcmc' needs {key} '{needed}'; found '{found}'")
            if self.model.missing == "agnostic":
                raise ValueError("inference 'mcmc' needs a missing model of single cells; found missing 'agnostic'")
        return self

    def replace(self, values: Mapping[str, Any]) -> Self:
        """Return settings with fields changed by name, wherever they live; text is parsed as the field's type.

        Raises
        ------
        ConfigError
            If a name is unknown or a value does not fit, naming both.
        """
        parts = {"model": self.model.model_dump(), "training": self.training.model_dump()}
        for key, value in values.items():
            part = next((name for name, fields in parts.items() if key in fields), None)
            if part is None:
                known = ", ".join(sorted(key for fields in parts.values() for key in fields))
                raise ConfigError(f"unknown setting '{key}'; known settings: {known}")
            parts[part][key] = value
        return self.from_dict(parts)

    def resolve_for(self, log: RatingLog) -> Self:
        """Return settings in which every ``auto`` is decided by a log."""
        has_levels, n_cells = log.scale.levels is not None, log.n_users * log.n_items
        return self.resolve(has_levels=has_levels, n_ratings=log.n_ratings, n_cells=n_cells)

    def resolve(self, *, has_levels: bool, n_ratings: int, n_cells: int) -> Self:
        """Return settings in which every ``auto`` is decided; see ``ModelConfig.resolve``.

        ``n_cells``: users times items of the log.
        """
        model, training = self.model, self.training
        if training.inference == "mcmc" and model.item_weights == "auto":
            model = model.model_copy(update={"item_weights": "variational"})
        model = model.resolve(has_levels=has_levels, n_ratings=n_ratings)
        decided: dict[str, Any] = {}
        if training.inference == "auto":
            is_small = n_ratings < SMALL_LOG and n_cells <= SAMPLED_CELLS
            is_possible = model.item_weights == "variational" and model.estimator == "marginal"
            sampled = is_small and is_possible and training.stop == "auto"
            decided["inference"] = "mcmc" if sampled else "variational"
        if training.stop == "auto":
            decided["stop"] = "converged" if model.item_weights == "variational" else "held-out"
        return self.model_copy(update={"model": model, "training": training.model_copy(update=decided)})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Validate nested settings, as read from JSON; raise ConfigError with the first problem in one line."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "value_error":  # from a validator of ours, which says all there is to say
                raise ConfigError(str(first["ctx"]["error"])) from error
            place = ".".join(str(part) for part in first["loc"][1:]) or "settings"
            raise ConfigError(f"setting {place}: {first['msg']}; found {first['input']!r}") from error
