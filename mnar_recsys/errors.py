"""The exceptions a user can meet. Each message says what was found, where, what was expected, and the remedy."""


class MnarError(Exception):
    """Base of every error that wrong input can cause; the command line prints it as one line and exits with 2."""


class DataError(MnarError):
    """A rating file, table or array does not hold what it should."""


class ConfigError(MnarError):
    """A setting is unknown, out of range, or does not fit the data."""


class ModelFolderError(MnarError):
    """A model folder is absent, incomplete, damaged, or was not written by this package."""


class NotFittedError(MnarError):
    """A recommender was asked to predict before it was fitted."""


class DivergedError(MnarError):
    """The training loss is no longer finite; the last good checkpoint stays on disk."""
