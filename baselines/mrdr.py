"""More robust doubly robust learning."""

from torch import Tensor

from baselines.doubly_robust import MfDrJl


class Mrdr(MfDrJl):
    r"""``MfDrJl`` whose imputation model minimises the variance of the doubly robust estimate.

    That variance is :math:`\sum_{u,i} (1 - p) / p \cdot (e - \hat e)^2 / (NP)^2`. Estimating the sum over all cells by
    inverse propensity weighting, a rated cell weighs :math:`(1 - \hat p) / \hat p^2` in the imputation loss instead of
    :math:`1 / \hat p` (Guo et al., Enhanced doubly robust learning for debiasing post-click conversion rate estimation,
    SIGIR 2021). With the signed errors of ``MfDrJl`` it is the variance of the estimate's derivative with respect to
    the predictions, by which these learn. The paper predicts conversions with cross-entropy.
    Settings and errors are those of ``MfDrJl``.
    """

    def imputation_weights(self, propensity: Tensor) -> Tensor:
        """Return (1 - p) / p^2 of each rated cell, (b,)."""
        return (1.0 - propensity) / propensity.square()
