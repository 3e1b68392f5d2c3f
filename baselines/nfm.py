"""The neural factorization machine on two features: the user and the item."""

from torch import Tensor, nn

from baselines.heads import MatrixFactorization


class NeuralFactorizationMachine(MatrixFactorization):
    r"""x_ui = mu + a_u + b_i + h . relu(W (p_u * q_i) + c).

    He and Chua, Neural factorization machines for sparse predictive analytics, SIGIR 2017, eqs. 3-7: with two features
    the bi-interaction pooling is the elementwise product of their embeddings. As there, dropout follows the pooling and
    the hidden layer; the optional batch normalization is left out, because rated and unrated cells, which methods mix
    in a step, differ in their statistics.

    Parameters
    ----------
    shape
        Numbers of users N and items P.
    size
        Width of the embeddings and of the hidden layer.
    mean
        Where mu starts, in the unit of the target.
    dropout
        Share of units set to 0 in training.
    """

    def __init__(self, shape: tuple[int, int], size: int, *, mean: float = 0.0, dropout: float = 0.2) -> None:
        super().__init__(shape, size, mean=mean)
        self.deep = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(size, size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(size, 1, bias=False)
        )

    def forward(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return predictions of pairs of indices: (n,), (n,) -> (n,)."""
        pooled = self.user(rows) * self.item(columns)  # (n, size)
        value: Tensor = self.mean + self.deep(pooled).squeeze(-1)
        if self.user_offset is not None and self.item_offset is not None:
            value = value + self.user_offset(rows).squeeze(-1) + self.item_offset(columns).squeeze(-1)
        return value
