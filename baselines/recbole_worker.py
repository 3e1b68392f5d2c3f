"""The process in which RecBole runs: train one of its models on the files beside it, write the scores of all pairs.

``recbole_models`` runs this file by its path, in a folder of its own, and imports nothing of it. RecBole evaluates
``sys.argv``, sets ``CUDA_VISIBLE_DEVICES``, adds names to numpy, seeds the global generators and makes folders where it
stands; all of that ends with this process.
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

REQUEST, SCORES = "request.json", "scores.npy"
_PAIRS_AT_ONCE = 100_000


def end_with_parent() -> None:
    """End this process when standard input closes: the one that started it, and holds the other end, is gone."""

    def wait() -> None:
        os.read(0, 1)  # nothing is ever sent; unbuffered, because a daemon in a buffered read breaks the exit
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def train(name: str, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Train a model by RecBole's own Trainer; return it, with the weights of the best validation, and its data set."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    config = Config(model=name, dataset="log", config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    parts = data_preparation(config, dataset)
    model = get_model(name)(config, parts[0].dataset).to(config["device"])
    if name == "DMF":
        # Its history has the ratings by now. From here on this only says that the label is the rating itself, not the
        # rating times a label of 0 or 1, of which there are none without negative samples.
        model.inter_matrix_type = "01"
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
    best: dict[str, Any] = {}

    # RecBole would keep the best weights in a pickle.
    def keep_best(_: int, __: float) -> None:
        if trainer.cur_step == 0:
            best.update({key: value.clone() for key, value in model.state_dict().items()})

    trainer.fit(parts[0], parts[1], saved=False, verbose=False, callback_fn=keep_best)
    model.load_state_dict(best or model.state_dict())
    for cached in getattr(model, "other_parameter_name", ()):  # of the last weights, not of the best
        setattr(model, cached, None)
    return model.eval(), dataset


def score_all(model: Any, dataset: Any, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return the score of every pair, (N, P); NaN for users and items without a rating in the files."""
    from recbole.data.interaction import Interaction

    users, items = dataset.uid_field, dataset.iid_field
    rows, columns = (dataset.id2token(field, np.arange(1, dataset.num(field))).astype(int) for field in (users, items))
    table = np.full(shape, np.nan, dtype=np.float32)
    everything = torch.arange(dataset.item_num)
    step = max(1, _PAIRS_AT_ONCE // dataset.item_num)
    with torch.no_grad():
        for block in torch.split(torch.arange(1, dataset.user_num), step):
            try:
                scores = model.full_sort_predict(Interaction({users: block}).to(model.device))
            except NotImplementedError:
                pairs = {users: block.repeat_interleave(len(everything)), items: everything.repeat(len(block))}
                scores = model.predict(Interaction(pairs).to(model.device))
            found = scores.view(len(block), -1)[:, 1:].cpu().numpy()
            table[np.ix_(rows[block.numpy() - 1], columns)] = found
    return table * float(model.max_rating) if hasattr(model, "max_rating") else table


def main() -> None:
    """Read the request in the current folder, and write the scores there."""
    end_with_parent()
    sys.argv = sys.argv[:1]
    request = json.loads(Path(REQUEST).read_text(encoding="utf-8"))
    model, dataset = train(request["model"], request["settings"])
    np.save(SCORES, score_all(model, dataset, tuple(request["shape"])), allow_pickle=False)


if __name__ == "__main__":
    main()
