"""Files that are written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mnar_recsys.errors import DataError


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``target``; rename it over ``target`` when the block ends without an error.

    An error, an interrupt or a kill leaves the old file as it was. After an error or an interrupt the temporary
    file is removed; after ``kill -9`` it stays behind under a name that starts with a dot and ends in ``.partial``.

    Raises
    ------
    DataError
        If the folder of ``target`` cannot be created or written to, or the disk is full.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(21, "is a folder")
        if target.exists() and not target.is_file():
            raise OSError(22, "is a device or pipe, not a file")  # renaming would replace /dev/null itself
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror}); choose another output path") from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes the file private; give it the permissions that an ordinary open() would have given.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, target)
    except OSError as error:
        raise DataError(
            f"{target}: writing failed ({error.strerror or error}); the old file, if any, is intact"
        ) from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def write_text(target: str | Path, text: str) -> None:
    """Write ``text`` to ``target`` as UTF-8, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
