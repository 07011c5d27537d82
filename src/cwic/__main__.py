"""Lets `python -m cwic` do what `cwic` does; the command itself is in `cli`."""

import sys

from cwic.cli import main

if __name__ == "__main__":
    sys.exit(main())
