"""Model settings and a training log -> a model, with every part started where the log says."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mnar_recsys.config import FEW_ITEMS, ModelConfig
from mnar_recsys.data import RatingLog, RatingScale
from mnar_recsys.errors import ConfigError
from mnar_recsys.model.decoders import CategoricalDecoder, Decoder, GaussianDecoder, OrdinalDecoder, StudentTDecoder
from mnar_recsys.model.encoder import SetEncoder
from mnar_recsys.model.exposure import Exposure
from mnar_recsys.model.missing import Agnostic, Ignorable, Known, Logistic, MissingModel, PerLevel
from mnar_recsys.model.missing.agnostic import MAX_ITEMS
from mnar_recsys.model.mnar_vae import MnarVae

# Pseudo-ratings of the overall distribution that an item starts with.
_SHRINKAGE = 5.0


def build_model(config: ModelConfig, log: RatingLog, seed: int) -> MnarVae:
    """Build a model for the items of ``log``; ``seed`` fixes the random starting weights.

    Raises
    ------
    ConfigError
        If a part needs rating levels and the log's scale is a real interval.
    """
    config = config.resolve(
        has_levels=log.scale.levels is not None, n_ratings=log.n_ratings, all_items=log.n_items <= FEW_ITEMS
    )
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        # Layers draw their starting weights from the global generators; the fork leaves those as they were.
        torch.manual_seed(seed)
        shared = config.latent_size if config.exposure_sees_taste is True else 0
        exposure = Exposure(log.n_items, config.exposure_size, activity=config.user_activity, shared=shared)
        encoder = SetEncoder(
            log.n_items,
            log.scale,
            embedding_size=config.embedding_size,
            code_size=config.code_size,
            latent_size=config.latent_size + exposure.latent_size,
            posterior_scale=config.posterior_scale,
            has_survey=log.surveyed is not None,
        )
        # Where the parts start is what the ratings given by choice say: a survey is small, and no sign of interest.
        chosen = log.chosen
        model = MnarVae(encoder, _decoder(config, chosen), _missing(config, chosen), exposure)
        model.survey_could_be_rated = config.survey_could_be_rated
        if config.item_weights == "variational":
            model.be_variational()
        if config.side_information:
            model.know_features(log.user_features, log.item_features)
        return model


def _decoder(config: ModelConfig, log: RatingLog) -> Decoder:
    if config.decoder in ("gaussian", "student-t"):
        means = _item_means(log)
        options: dict[str, Any] = {
            "initial_sd": max(float(np.std(log.ratings)), 1e-3 * log.scale.half_width),
            "margin": config.mean_margin * (log.scale.step or (log.scale.high - log.scale.low) / 10),
            "latent_size": config.latent_size,
            "variance": config.gaussian_variance,
        }
        if config.decoder == "student-t":
            return StudentTDecoder(means, log.scale, df=config.student_df, **options)
        return GaussianDecoder(means, log.scale, quadrature_nodes=config.quadrature_nodes, **options)
    _need_levels(f"decoder '{config.decoder}'", log.scale, "choose the Gaussian or the Student-t decoder")
    if config.decoder == "ordinal":
        return OrdinalDecoder(
            _item_scores(log),
            _level_shares(log),
            log.scale,
            latent_size=config.latent_size,
            temperature=config.gumbel_temperature,
        )
    return CategoricalDecoder(
        _item_level_shares(log),
        log.scale,
        latent_size=config.latent_size,
        temperature=config.gumbel_temperature,
    )


def _missing(config: ModelConfig, log: RatingLog) -> MissingModel:
    log_odds, centre = _item_log_odds(log), float(np.mean(log.ratings))
    match config.missing:
        case "ignorable":
            return Ignorable(log_odds)
        case "shared" | "per-item":
            return Logistic(log_odds, log.scale, centre=centre, sign=config.sign, per_item=config.missing == "per-item")
        case "per-level":
            _need_levels("missing model 'per-level'", log.scale, "choose 'shared'")
            return PerLevel(log_odds, log.scale, sign=config.sign)
        case "agnostic":
            if not config.agnostic_hidden and log.n_items > MAX_ITEMS:
                raise ConfigError(
                    f"missing model 'agnostic' has a weight for each pair of items, at most {MAX_ITEMS:,} of them; "
                    f"found {log.n_items:,}. Set agnostic_hidden to some units, 32 say, or choose 'per-item'"
                )
            return Agnostic(
                log_odds,
                log.scale,
                centre=centre,
                sign=config.sign,
                hidden=config.agnostic_hidden,
                prior_sd=config.agnostic_prior_sd,
            )
        case "known":
            points = config.known_propensities or ()
            outside = [rating for rating, _ in points if not log.scale.low <= rating <= log.scale.high]
            if outside:
                raise ConfigError(
                    f"known_propensities must be at ratings of the {log.scale.describe()}; found {outside[0]:g}. "
                    "Correct or leave out that rating"
                )
            return Known(log_odds, points, adjust=config.known_adjust)
    raise ConfigError(f"missing model '{config.missing}' is not decided; resolve the settings first")


def _need_levels(what: str, scale: RatingScale, remedy: str) -> None:
    if scale.levels is None:
        raise ConfigError(f"{what} needs rating levels, but the scale is {scale.describe()}; {remedy}")


def _item_log_odds(log: RatingLog) -> Tensor:
    """Return the log-odds (P,) of an item's being rated by a user to whom it was on offer."""
    counts = np.bincount(log.items, minlength=log.n_items)
    offered = log.n_users if log.eligible is None else log.eligible.users_by_item()
    share = (counts + 0.5) / (offered + 1)
    return torch.from_numpy(np.log(share) - np.log1p(-share)).float()


def _item_means(log: RatingLog) -> Tensor:
    counts = np.bincount(log.items, minlength=log.n_items)
    sums = np.bincount(log.items, weights=log.ratings, minlength=log.n_items)
    mean = (sums + _SHRINKAGE * np.mean(log.ratings)) / (counts + _SHRINKAGE)
    return torch.from_numpy(mean).float()


def _item_scores(log: RatingLog) -> Tensor:
    """Return starting scores (P,): the logit of the item's mean place on the scale, less that of all ratings."""
    place = (_item_means(log) - log.scale.low) / (log.scale.high - log.scale.low)
    overall = (float(np.mean(log.ratings)) - log.scale.low) / (log.scale.high - log.scale.low)
    return torch.logit(place.clamp(0.02, 0.98)) - torch.logit(torch.tensor(overall).clamp(0.02, 0.98))


def _level_shares(log: RatingLog) -> Tensor:
    counts = np.bincount(log.scale.level_index(log.ratings), minlength=log.scale.n_levels or 0) + 1.0
    return torch.from_numpy(counts / counts.sum()).float()


def _item_level_shares(log: RatingLog) -> Tensor:
    """Smoothed shares of the levels of each item: (R, P)."""
    levels = log.scale.n_levels or 0
    index = log.scale.level_index(log.ratings)
    counts = np.zeros((levels, log.n_items))
    np.add.at(counts, (index, log.items), 1.0)
    overall = counts.sum(1) + 1.0
    counts += _SHRINKAGE * (overall / overall.sum())[:, None]
    return torch.from_numpy(counts / counts.sum(0)).float()
