"""The command line: one file a command group, no rules inside. Importing it loads no heavy library."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Exit 0 done, 1 a named error (one line on stderr), 2 wrong usage. Never a traceback."""
    try:
        from modelyard.cli.app import run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:  # before there was anything to interrupt
        sys.exit(130)
    except BrokenPipeError:  # `modelyard ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
