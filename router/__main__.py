"""The command `video-router`, which is also `python -m router`.

The commands need typer and rich, which the router itself does not: they come with the extra `cli`.
"""

from __future__ import annotations

import sys

from router import _begun

__all__ = ["main"]


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    _begun.hear()
    try:
        from router.cli.app import run
    except ModuleNotFoundError as missing:
        if missing.name not in ("typer", "rich"):
            raise
        sys.stderr.write("the command line needs an extra: pip install 'video-router[cli]'\n")
        raise SystemExit(2) from None
    raise SystemExit(run())


if __name__ == "__main__":
    main()
