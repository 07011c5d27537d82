"""The file that a Pillow image was opened from, read a second time for what Pillow drops."""

import contextlib
from collections.abc import Iterator
from typing import IO

from PIL import Image


@contextlib.contextmanager
def stream_of(image: Image.Image) -> Iterator[IO[bytes] | None]:
    """The file of an image, at its beginning; None if it is no longer there.

    Where a file of the caller's stood comes back.
    """
    for name in ("fp", "_fp"):
        file = getattr(image, name, None)
        if file is not None and hasattr(file, "read") and not getattr(file, "closed", False):
            place = file.tell()
            try:
                file.seek(0)
                yield file
            finally:
                file.seek(place)
            return
    with contextlib.ExitStack() as stack:
        opened = None
        with contextlib.suppress(OSError):
            opened = stack.enter_context(open(getattr(image, "filename", None) or "", "rb"))
        yield opened
