"""How a command ends that cannot go on: one line on stderr and an exit code, never a traceback for bad input."""

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import typer

from mnar_recsys.cli.terminal import error_line, one_line
from mnar_recsys.errors import MnarError

BAD_INPUT = 2
INTERRUPTED = 130
TERMINATED = 143

# typer carries its own copy of click since 0.26; the base of its usage errors is where both have it.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]


class InterruptedRunError(Exception):
    """Ctrl-C, where the verb has something to say: what is kept, how to go on."""


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    """Unwind the stack, so that half-written files are removed."""
    raise SystemExit(TERMINATED)


def run(command: Callable[[], object]) -> int:
    """Run the parsed command line and return its exit code: 0, 2 for bad input, 130 after Ctrl-C."""
    with suppress(ValueError):  # not the main thread: leave the signals alone
        signal.signal(signal.SIGTERM, _terminate)
    try:
        code = command()
    except MnarError as error:
        error_line(error)
        return BAD_INPUT
    except _USAGE_ERROR as error:
        error_line(_usage_message(error))
        return BAD_INPUT
    except InterruptedRunError as interrupt:
        return _interrupted(str(interrupt))
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:
        # The reader of stdout went away (as `head` does); keep Python from complaining when it flushes.
        sys.stdout = None
        return 1
    # typer hands an interrupt on as this code.
    return _interrupted() if code == INTERRUPTED else code if isinstance(code, int) else 0


def _interrupted(message: str = "stopped; no partial output is left") -> int:
    print(f"interrupted: {one_line(message)}", file=sys.stderr)
    return INTERRUPTED


def _usage_message(error: Exception) -> str:
    """Return what is wrong with the command line, and where its help is."""
    message: str = getattr(error, "format_message", error.__str__)()
    message = message.replace("Value error, ", "")  # pydantic's prefix, inside typer's message
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", None) or "mnar-recsys"
    return f"{one_line(message).rstrip('.')}; see `{command} --help`"
