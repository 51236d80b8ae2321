"""Runs a program that knows nothing of who started it, and ends it with them.

    python until_eof.py FOLDER PROGRAM ARGUMENT…

The program takes over this process, so what is signalled to the one reaches the other. A child
stays behind and waits at stdin. That ends when the starter does, in whatever way: then the program
is killed, and the folder that it worked in is removed.

Run by its path and importing nothing of ours, since it is to be there at once.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn


def _run(folder: str, command: Sequence[str]) -> NoReturn:
    program = os.getpid()
    if os.fork() == 0:
        _watch(program, folder)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.execv(command[0], list(command))


def _watch(program: int, folder: str) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Whoever reads what the program says is not to wait for this one's end as well.
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    while os.read(0, 4096):
        pass
    # A child whose parent has ended has another, and its number may be somebody else's by now.
    if os.getppid() == program:
        os.kill(program, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    _run(sys.argv[1], sys.argv[2:])
