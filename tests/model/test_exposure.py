"""Exposure: cells against pairs, and what the shared form lets the mask say."""

import numpy as np
import pytest
import torch

from mnar_recsys.model.batch import UserBatch
from mnar_recsys.model.exposure import Exposure


@pytest.mark.parametrize(("size", "shared"), [(0, 0), (2, 0), (0, 3), (2, 3)])
@pytest.mark.parametrize("activity", [True, False])
def test_cells_and_pairs_agree_with_the_sum_written_out(size: int, shared: int, activity: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    exposure = Exposure(5, size, activity=activity, shared=shared)
    z = torch.randn(4, 2, 3 + exposure.latent_size, generator=generator)  # 3 of taste
    taste, seen = exposure.split(z)
    torch.testing.assert_close(taste, z[..., :3])
    rows, items = torch.tensor([0, 0, 1]), torch.tensor([1, 4, 0])
    cells, pairs = exposure.cells(seen), exposure.pairs(seen, UserBatch(rows, items, torch.ones(3), np.array([2, 1])))
    if exposure.is_absent:
        assert cells is None
        assert pairs is None
        return
    wanted = torch.zeros(4, 2, 5)
    blocks = ([z[..., :3]] if shared else []) + ([z[..., 3 : 3 + size]] if size else [])
    if blocks:
        wanted = wanted + torch.einsum("sbe,je->sbj", torch.cat(blocks, -1), exposure.weight)
    if activity:
        wanted = wanted + (z[..., -1] * torch.exp(exposure.log_activity_sd))[..., None]
    assert cells is not None
    cells = cells if cells.dim() == 3 else cells[..., None].expand(4, 2, 5)
    torch.testing.assert_close(cells, wanted)
    torch.testing.assert_close(pairs, wanted[:, rows, items])
