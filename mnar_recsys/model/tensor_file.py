"""Named tensors on disk, as safetensors: nothing is pickled.

Facts about the tensors stand beside them as one entry of JSON. safetensors writes several entries in an order that
changes from run to run, and files of equal content should be equal byte for byte.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mnar_recsys.files import atomic_path

_ENTRY = "mnar_recsys"


def write_tensors(target: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts (JSON values), whole or not at all; raise DataError if the disk is full."""
    with atomic_path(target) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata={_ENTRY: json.dumps(facts)})
        except SafetensorError as error:  # what safetensors makes of a full disk
            raise OSError(str(error)) from error


def read_facts(source: Path) -> dict[str, Any]:
    """Return the facts alone, without loading a tensor; see ``read_tensors`` for what is raised."""
    with safe_open(source, framework="pt") as file:
        facts = json.loads((file.metadata() or {})[_ENTRY])
    if not isinstance(facts, dict):
        raise TypeError("the facts are not a table")
    return facts


def read_tensors(source: Path) -> dict[str, Tensor]:
    """Return the tensors.

    Raises
    ------
    SafetensorError, OSError
        If the file is absent or not a safetensors file.
    KeyError, TypeError, ValueError
        From ``read_facts``: if it was not written by this package.
    """
    with safe_open(source, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}
