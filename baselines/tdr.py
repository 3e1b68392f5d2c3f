"""Targeted doubly robust learning."""

from torch import Tensor

from baselines.doubly_robust import Errors, MfDrJl
from baselines.weighting import snips_loss


class Tdr(MfDrJl):
    r"""``MfDrJl`` with imputed errors moved so that the doubly robust correction vanishes.

    The targeting step replaces :math:`\hat e` by :math:`\tilde e = \hat e + \eta` with the :math:`\eta` for which
    :math:`\sum_{\text{rated}} (e - \tilde e) / \hat p = 0`; the estimate is then the mean of :math:`\tilde e` over all
    cells, with the small variance of error imputation and the double robustness kept (Li, Lyu, Zheng and Wu,
    TDR-CL: Targeted doubly robust collaborative learning for debiased recommendations, ICLR 2023). The step is part of
    the loss: its gradient is that of the estimate, :math:`\eta` included.

    The sum is over a batch: each has its own :math:`\eta`. The paper moves :math:`\hat e` by
    :math:`\eta (1 / \hat p - 1)`, and so needs the propensity of every cell; where it depends on the rating there is
    none for cells without one. Weighting by :math:`1 / \hat p` and moving by a constant, the other usual form of a
    targeting step, needs rated cells only. The paper predicts binary labels.

    Settings and errors are those of ``MfDrJl``.
    """

    def estimate(self, errors: Errors) -> Tensor:
        """Return the mean of the targeted imputed errors, a scalar."""
        return errors.drawn.mean() + targeting_step(errors.true, errors.imputed, errors.propensity)


def targeting_step(true: Tensor, imputed: Tensor, propensity: Tensor) -> Tensor:
    """Return the eta with sum((true - imputed - eta) / propensity) = 0, a scalar; all arguments are (b,)."""
    return snips_loss(true - imputed, propensity)
