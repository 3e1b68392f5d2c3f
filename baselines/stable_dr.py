"""Stabilised doubly robust learning."""

import torch
from torch import Tensor

from baselines.doubly_robust import Errors, MfDrJl

MAX_TILT = 3.0
_MAX_STEPS = 50
_TOLERANCE = 1e-9
_TINY = 1e-12


class StableDr(MfDrJl):
    r"""Self-normalised weighting, by propensities that balance the imputed errors.

    The estimate is :math:`\sum e / \hat p / \sum 1 / \hat p` over rated cells: bounded whatever the propensities. It is
    doubly robust where these satisfy

    .. math:: \sum_{\text{rated}} (\hat e_{ui} - \bar e) / \hat p_{ui} = 0, \quad
        \bar e = \frac{1}{NP} \sum_{u,i} \hat e_{ui},

    for then it equals the mean error if the imputed errors are right (Li, Zheng and Wu, StableDR: Stabilized doubly
    robust learning for recommendation on data missing not at random, ICLR 2023). Imputation, propensities and
    predictions are updated in turn, every batch.

    The paper trains a propensity model by its likelihood plus a penalty on the constraint. Here the given propensities
    are tilted, :math:`1/\hat p \propto \exp(-\lambda (\hat e - \bar e) / s) / p` with s the spread of the imputed
    errors: of all weights with the constraint these are the nearest, in relative entropy, to the given ones, and they
    need the propensities of rated cells only. :math:`|\lambda|` is at most ``MAX_TILT``, which leaves the constraint
    unmet where only wilder weights would meet it. Each batch meets the constraint on its own, with :math:`\bar e` from
    the cells drawn in the step. The paper predicts binary labels. Settings and errors are those of ``MfDrJl``.
    """

    def estimate(self, errors: Errors) -> Tensor:
        """Return the weighted mean error of the rated cells, a scalar."""
        with torch.no_grad():
            weights = balanced_weights(errors.propensity, errors.imputed, errors.drawn.mean())
        return weights @ errors.true


def balanced_weights(propensity: Tensor, imputed: Tensor, mean: Tensor) -> Tensor:
    """Return the weights nearest to 1 / propensity that give the imputed errors a weighted mean of ``mean``.

    Parameters
    ----------
    propensity, imputed
        Of the rated cells, (b,).
    mean
        Mean imputed error of all cells, a scalar.

    Returns
    -------
    Tensor
        Positive weights that sum to 1, (b,).
    """
    excess = (imputed - mean).double()
    excess = excess / excess.square().mean().sqrt().clamp_min(_TINY)
    start = -propensity.double().log()
    low, high, tilt = -MAX_TILT, MAX_TILT, 0.0
    for _ in range(_MAX_STEPS):
        weights = torch.softmax(start - tilt * excess, dim=0)
        imbalance = float(weights @ excess)
        if abs(imbalance) <= _TOLERANCE:
            break
        # The imbalance falls as the tilt rises: a Newton step inside the bracket, else its middle.
        low, high = (tilt, high) if imbalance > 0.0 else (low, tilt)
        slope = float(weights @ excess.square()) - imbalance**2
        newton = tilt + imbalance / max(slope, _TINY)
        tilt = newton if low < newton < high else (low + high) / 2
    return weights.to(imputed.dtype)
