"""Lets `python -m cwic` do what `cwic` does; the command itself is in `cli`."""

import gc
import sys

from cwic.cli.main import main


def run() -> int:
    """The command, in a process that ends with it."""
    code = main()
    # The interpreter would look through all objects for cycles once more before it ends.
    gc.freeze()
    return code


if __name__ == "__main__":
    sys.exit(run())
