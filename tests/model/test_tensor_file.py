"""Tensors on disk: what is read is what was written, and equal content gives equal bytes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mnar_recsys.model.tensor_file import read_facts, read_tensors, write_tensors

FACTS = {"fingerprint": "abc", "finished": True, "progress": {"step": 3, "best": -1.5}}


def test_tensors_and_facts_come_back(tmp_path: Path) -> None:
    tensors = {"weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(7)}
    write_tensors(tmp_path / "t.safetensors", tensors, FACTS)
    assert read_facts(tmp_path / "t.safetensors") == FACTS
    found = read_tensors(tmp_path / "t.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    # safetensors keeps metadata in a hash map whose order is drawn anew for each file.
    for number in range(12):
        write_tensors(tmp_path / f"{number}.safetensors", {"weight": torch.ones(3)}, FACTS)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_file_of_another_program_has_no_facts(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(3)}, tmp_path / "other.safetensors")
    with pytest.raises(KeyError, match="mnar_recsys"):
        read_facts(tmp_path / "other.safetensors")
