"""Ends the others if nobody else does: a process that outlives a killed test, for a moment.

It reads `+<id>` for each process that was started and `-<id>` for each that was seen to end. When
its input ends, whoever started it has ended too, however that came: those left are killed, stopped
or not. It holds a descriptor of each, so that an id which was given away again harms nobody.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

__all__ = ["main"]


def main() -> None:
    held: dict[int, int] = {}
    for line in sys.stdin:
        process = int(line[1:])
        if line[0] == "+":
            with contextlib.suppress(ProcessLookupError):
                held[process] = os.pidfd_open(process)
        elif process in held:
            os.close(held.pop(process))
    for descriptor in held.values():
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)


if __name__ == "__main__":
    main()
