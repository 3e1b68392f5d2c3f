"""not-MIWAE for tables: rows of numbers, some of which are missing because of what they are."""

from mnar_recsys.tables.imputer import MNARImputer

__all__ = ["MNARImputer"]
