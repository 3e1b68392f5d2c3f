"""Appendix C: an invariant and an equivariant missing model, each with its property."""

import pytest
import torch

from mnar_recsys.model.missing import Equivariant, Invariant, KnownMap


def spread(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))


def test_invariant_to_a_permutation_of_the_features() -> None:
    missing = Invariant(torch.linspace(-1, 1, 6))
    spread(missing)
    rows = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    moved = rows[:, torch.tensor([3, 1, 5, 0, 2, 4])]
    torch.testing.assert_close(missing.row_logit(moved), missing.row_logit(rows))
    assert missing.row_logit(rows).std(0).min() > 0.01  # and yet it depends on the row


def test_equivariant_to_moving_the_image() -> None:
    missing = Equivariant(torch.zeros(20), (4, 5))
    spread(missing)
    images = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    moved = images.roll((1, -2), (1, 2))
    expected = missing.row_logit(images.flatten(1)).view(3, 4, 5).roll((1, -2), (1, 2))
    torch.testing.assert_close(missing.row_logit(moved.flatten(1)).view(3, 4, 5), expected)


@pytest.mark.parametrize(
    "missing", [Invariant(torch.zeros(6)), Equivariant(torch.zeros(6), (2, 3))], ids=["inv", "equi"]
)
def test_a_cell_alone_has_no_log_odds(missing: Invariant | Equivariant) -> None:
    with pytest.raises(ValueError, match="whole row"):
        missing.logit(torch.zeros(1), slice(None))


def test_selection_is_what_a_value_adds_to_its_own_log_odds() -> None:
    missing = Equivariant(torch.zeros(9), (3, 3))
    with torch.no_grad():
        missing.convolution.weight[0, 0, 1, 1] = -2.0
        missing.convolution.weight[0, 0, 0, 1] = 5.0
    torch.testing.assert_close(missing.selection(torch.tensor([0.0, 1.5])), torch.tensor([0.0, -3.0]))


def test_a_known_map_is_told_in_the_units_of_the_table() -> None:
    missing = KnownMap(lambda x: -50 * (x - 0.75), centre=torch.tensor([0.5, 0.0]), unit=torch.tensor([0.1, 1.0]))
    logit = missing.logit(torch.tensor([[1.0, 1.0]]), slice(None))
    torch.testing.assert_close(logit, torch.tensor([[7.5, -12.5]]))
    torch.testing.assert_close(missing.logit(torch.tensor([1.0]), torch.tensor([1])), torch.tensor([-12.5]))
    assert not any(parameter.requires_grad for parameter in missing.parameters())
