"""What the paper prints, to stand beside what comes out here (Ipsen, Mattei & Frellsen, ICLR 2021)."""

TABLE_1 = {
    "ppca": (1.39, 1.61, 1.61, 1.57, 1.67, 0.90),
    "notmiwae_ppca_agnostic": (1.25, 1.47, 1.32, 1.27, 1.20, 0.78),
    "notmiwae_ppca_self_masking": (0.57, 1.31, 1.13, 0.99, 0.78, 0.72),
    "notmiwae_ppca_known_sign": (0.57, 1.31, 1.13, 0.99, 0.77, 0.72),
    "miwae": (1.19, 1.66, 1.62, 1.55, 1.72, 1.20),
    "notmiwae_agnostic": (0.80, 2.63, 1.30, 1.37, 1.43, 1.10),
    "notmiwae_self_masking": (1.88, 1.26, 1.08, 1.04, 1.48, 0.74),
    "notmiwae_known_sign": (0.74, 1.12, 1.07, 1.04, 1.38, 0.76),
    "low_rank_joint": (0.79, 1.57, 1.42, 1.39, 1.19, 1.22),
    "missforest": (1.28, 1.76, 1.64, 1.63, 1.66, 1.57),
    "mice": (1.41, 1.70, 1.68, 1.41, 1.72, 1.17),
    "mean": (1.73, 1.85, 1.83, 1.74, 1.69, 1.82),
}
"""Imputation RMSE (table 1), data sets in the order of ``DATA_SETS``."""

TABLE_A1 = {
    "notmiwae_ppca_agnostic": (0.80, 0.75, 0.88, 0.83, 0.78, 0.96),
    "notmiwae_ppca_self_masking": (0.92, 0.95, 0.96, 0.97, 0.99, 0.98),
    "notmiwae_ppca_known_sign": (0.98, 0.95, 0.96, 0.97, 1.00, 0.97),
    "notmiwae_agnostic": (0.92, 0.54, 0.91, 0.88, 0.80, 0.93),
    "notmiwae_self_masking": (0.99, 0.93, 0.95, 0.90, 0.71, 0.98),
    "notmiwae_known_sign": (0.99, 0.97, 0.97, 0.95, 0.78, 0.98),
}
"""Mask classification accuracy on complete data (table A1)."""

DATA_SETS = ("banknote", "concrete", "red wine", "white wine", "yeast", "breast cancer")
_SHAPES = ((1372, 4), (1030, 8), (1599, 11), (4898, 11), (1484, 8), (569, 30))

TABLE_2: dict[str, tuple[float | None, float | None]] = {
    "miwae": (0.17298, 1867.66),
    "notmiwae_known": (0.07294, 1894.36),
    "miwae_complete": (None, 1908.11),
    "ones": (0.1757, None),
}
"""SVHN: imputation RMSE, and log-likelihood of complete test images with 10,000 samples, in nats an image; ``ones`` is
the constant imputation by 1."""


def column_of(shape: tuple[int, int]) -> int | None:
    """Return which column of ``TABLE_1`` a complete table without its target is, by its size, or None."""
    return _SHAPES.index(shape) if shape in _SHAPES else None
