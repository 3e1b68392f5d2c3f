"""Table 2, figures 2 and 3: images whose bright pixels are missing (section 4.3)."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from mnar_recsys.errors import DataError
from mnar_recsys.rng import numpy_generator
from mnar_recsys.tables import MNARImputer
from mnar_recsys.tables.complete_data import complete_log_likelihood

STEEPNESS, CLIPPED_AT = -50.0, 0.75  # eq. 12
OnStep = Callable[[str, int, int], None]
_TEST_SHARE = 1 / 6
_LUMA = np.array([0.299, 0.587, 0.114])
_SPATIAL_AXES = 2


@dataclass(frozen=True)
class Clipped:
    """Grey images in [0, 1], flattened, and which of their pixels are observed."""

    train: NDArray[np.float64]
    """(N, H * W)"""
    test: NDArray[np.float64]
    observed: NDArray[np.bool_]
    """of ``train``"""
    shape: tuple[int, int]

    @classmethod
    def of(cls, images: NDArray[np.float64], seed: int = 0) -> Self:
        """Split off a sixth of images (n, H, W) for testing, and hide pixels of the rest by eq. 12."""
        rng = numpy_generator(seed, "clipping")
        flat = images.reshape(len(images), -1)[rng.permutation(len(images))]
        n_test = round(_TEST_SHARE * len(flat))
        train = flat[n_test:]
        observed = rng.random(train.shape) < 1 / (1 + np.exp(-log_odds(torch.from_numpy(train)).numpy()))
        height, width = images.shape[1:]
        return cls(train, flat[:n_test], observed, (int(height), int(width)))

    @property
    def incomplete(self) -> NDArray[np.float64]:
        """The training images with NaN where a pixel is hidden."""
        return np.where(self.observed, self.train, np.nan)

    def squared_errors(self, imputed: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the squared errors of the hidden pixels summed over each image: (N,)."""
        return np.asarray((np.square(imputed - self.train) * ~self.observed).sum(1))

    def rmse(self, imputed: NDArray[np.float64]) -> float:
        """Return the root mean squared error of the hidden pixels."""
        return float(np.sqrt(self.squared_errors(imputed).sum() / (~self.observed).sum()))


class Draws(NamedTuple):
    """Importance samples: of each training image to impute it, of each test image for its likelihood."""

    imputation: int
    likelihood: int


@dataclass(frozen=True)
class Row:
    """One row of table 2. Likelihoods in nats an image."""

    method: str
    imputed: NDArray[np.float64] | None
    """(N, H * W); None where nothing was missing"""
    rmse: float | None
    interval: tuple[float, float] | None
    """95 %, from resampled images"""
    rmse_paper: float | None
    """by eq. 18, as the paper imputes"""
    log_likelihood: float | None
    seconds: float


def log_odds(x: torch.Tensor) -> torch.Tensor:
    """Return the log-odds that pixels are observed (eq. 12): any shape."""
    return STEEPNESS * (x - CLIPPED_AT)


def compare(
    data: Clipped,
    *,
    iterations: int,
    draws: Draws,
    channels: tuple[int, ...],
    seed: int = 0,
    on_step: OnStep | None = None,
) -> Iterator[Row]:
    """Yield the rows of table 2: MIWAE, not-MIWAE told the mechanism, ones, and MIWAE without missing pixels."""
    # Tables A2 and A3, A.2. "The variance was lower bounded at .02" must be of the standard deviation: with a variance
    # of .02, 1,024 pixels cannot have the printed 1,894 nats (at most 1,072).
    common: dict[str, Any] = {
        "decoder": "conv", "encoder": "conv", "image_shape": data.shape, "channels": channels, "latent_size": 20,
        "samples": 5, "batch_size": 64, "least_sd": 0.02, "mask_input": False, "standardise": False,
        "estimator": "sampled", "max_iter": iterations, "random_state": seed,
    }  # fmt: skip
    ignorable = {"missing": "ignorable"}
    models: tuple[tuple[str, NDArray[np.float64], dict[str, Any]], ...] = (
        ("miwae", data.incomplete, ignorable),
        ("notmiwae_known", data.incomplete, {"missing": "known", "log_odds": log_odds}),
        ("miwae_complete", data.train, ignorable),
    )
    for method, table, changes in models:
        start = time.perf_counter()

        def look(step: int, _: NDArray[np.float64], method: str = method) -> None:
            if on_step is not None:
                on_step(method, step, iterations)

        imputer = MNARImputer(**common, **changes, n_draws=draws.likelihood).fit(table, on_step=look)
        likelihood = float(complete_log_likelihood(imputer, data.test, max_iter=max(1, iterations // 5)).mean())
        imputer.set_params(n_draws=draws.imputation)
        if method == "miwae_complete":
            yield Row(method, None, None, None, None, likelihood, time.perf_counter() - start)
            continue
        imputed = imputer.transform(table)
        by_paper = data.rmse(imputer.set_params(estimand="paper").transform(table))
        yield Row(method, imputed, *_error(data, imputed), by_paper, likelihood, time.perf_counter() - start)
    ones = np.where(data.observed, data.train, 1.0)
    yield Row("ones", ones, *_error(data, ones), data.rmse(ones), None, 0.0)


def _error(data: Clipped, imputed: NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    """Return the RMSE of hidden pixels, with its interval."""
    errors, hidden = data.squared_errors(imputed), (~data.observed).sum(1)
    picks = numpy_generator(0, "resampled images").integers(len(errors), size=(1_000, len(errors)))
    resampled = np.sqrt(errors[picks].sum(1) / hidden[picks].sum(1))
    low, high = np.quantile(resampled, (0.025, 0.975))
    return data.rmse(imputed), (float(low), float(high))


def digits() -> NDArray[np.float64]:
    """Return scikit-learn's digits: (1797, 8, 8) in [0, 1]."""
    return np.asarray(load_digits().images / 16.0)


def read_images(path: Path) -> NDArray[np.float64]:
    """Return the images of an .npz file as grey ones in [0, 1]: (n, H, W).

    Its largest array is taken: (n, H, W), (n, H, W, 3), or (H, W, 3, n) as SVHN has them; bytes are divided by 255.

    Raises
    ------
    DataError
        If there is no such array, or values are outside [0, 1] (0 to 255 for whole numbers).
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found: NDArray[Any] = max((arrays[name] for name in arrays.files), key=np.size, default=np.zeros(0))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable .npz file of arrays ({error})") from error
    if found.ndim == 4 and found.shape[2] == len(_LUMA):
        found = found.transpose(3, 0, 1, 2)
    images = found.astype(np.float64) / (255 if np.issubdtype(found.dtype, np.integer) else 1)
    if images.ndim == 4 and images.shape[3] == len(_LUMA):
        images = images @ _LUMA
    if images.ndim != 1 + _SPATIAL_AXES or len(images) < 12:
        raise DataError(f"{path}: found an array {found.shape}; expected (n, H, W), (n, H, W, 3) or (H, W, 3, n)")
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 1):
        raise DataError(f"{path}: found values from {low:g} to {high:g}; expected grey levels in [0, 1]")
    return images
