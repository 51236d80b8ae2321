"""Ctrl-C while the command line is still being imported.

`video-router` and `python -m router` run no line of their own before this package is imported, with
all that it needs, and that takes a moment in which people change their minds. Where this package is
a library, nothing is touched: Ctrl-C is the application's.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType

__all__ = ["hear"]

PROGRAM = "video-router"
INTERRUPTED = 130


def hear() -> None:
    """From here on a Ctrl-C that nobody catches is one line and an exit code."""
    sys.excepthook = _said


def _is_the_command() -> bool:
    words = sys.orig_argv
    as_module = "-m" in words and words[words.index("-m") + 1 :][:1] == ["router"]
    return as_module or os.path.basename(sys.argv[0]).removesuffix(".exe") == PROGRAM


def _said(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if not _is_interrupt(error):
        sys.__excepthook__(kind, error, traceback)
        return
    sys.stderr.write(f"{PROGRAM}: interrupted\n")
    sys.stderr.flush()
    # What is half imported has nothing to clean up.
    os._exit(INTERRUPTED)


def _is_interrupt(error: BaseException | None) -> bool:
    """Also where it came in the middle of what wraps all errors in its own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


if _is_the_command():
    hear()
