"""All pictures of a run on its device, and crops that are gathered there.

What a crop is and which pictures there are is left to :mod:`.data`.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cwic.errors import CodecError, CodecWarning
from cwic.image import LUMA
from cwic.training import data

# Sides of the smaller copies that are kept of a picture.
_COPY_SCALES = (0.7, 0.5)


def uses_device(config: data.DataConfig, device: torch.device) -> bool:
    """Whether the pictures of a run lie on its device."""
    if config.on_device == "auto":
        return device.type == "cuda" and not config.colour_jitter
    return config.on_device == "always"


class DeviceCrop(NamedTuple):
    """Where one crop of a :class:`DeviceStore` comes from."""

    picture: int  # index into the store
    top: int
    left: int
    flip: bool  # mirror left-right, before it is turned
    turns: int  # by 90 degrees counterclockwise, as of numpy.rot90
    grey: bool = False
    below: int = 0  # so many last rows repeat the one above them
    right: int = 0  # likewise of columns


class DeviceStore:
    """All pictures decoded in one flat tensor on a device, from which crops are gathered.

    Shrinking is done when the store is made: each picture has copies of 0.7 and 0.5 of its size
    where these are still large enough, and `downscale` is the share of crops taken from copies.
    """

    def __init__(
        self,
        paths: Sequence[data.PictureFile],
        min_side_px: int,
        config: data.DataConfig,
        device: torch.device,
    ):
        """Read everything, on all cores; broken pictures are skipped with a warning.

        Pictures and copies with a smaller side than `min_side_px` are left out.
        """
        scales = _COPY_SCALES if config.downscale else ()

        def versions(path: data.PictureFile) -> list[np.ndarray] | CodecError:
            try:
                pixels = data.read_pixels(path)
            except CodecError as error:
                return error
            height, width = pixels.shape[:2]
            sizes = [(round(scale * width), round(scale * height)) for scale in scales]
            image = Image.fromarray(pixels)
            copies = [
                np.asarray(image.resize(size, Image.Resampling.LANCZOS))
                for size in sizes
                if min(size) >= min_side_px
            ]
            return [pixels, *copies] if min(height, width) >= min_side_px else []

        self._places: list[tuple[int, int, int]] = []  # offset, height, width of each version
        self._versions: list[range] = []  # of each picture, the first is the whole one
        parts: list[Tensor] = []
        offset = 0
        # Bounded chunks, so that host and device never hold everything twice.
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as workers:
            for start in range(0, len(paths), 256):
                chunk: list[np.ndarray] = []
                for result in workers.map(versions, paths[start : start + 256]):
                    if isinstance(result, CodecError):
                        warnings.warn(f"skipped: {result}", CodecWarning, stacklevel=2)
                        continue
                    if not result:
                        continue
                    first = len(self._places)
                    for pixels in result:
                        self._places.append((offset, *pixels.shape[:2]))
                        offset += pixels.size
                        chunk.append(pixels.reshape(-1))
                    self._versions.append(range(first, len(self._places)))
                if chunk:
                    parts.append(torch.from_numpy(np.concatenate(chunk)).to(device))
        if not self._versions:
            raise data.no_usable_picture(len(paths), min_side_px)
        self._flat = torch.cat(parts)

    def __len__(self) -> int:
        """Pictures, their copies not counted."""
        return len(self._versions)

    def version(self, index: int) -> Tensor:
        """(H, W, 3) uint8 of a picture or copy, as a :class:`DeviceCrop` counts them."""
        offset, height, width = self._places[index]
        return self._flat[offset : offset + 3 * height * width].view(height, width, 3)

    def draw(self, config: data.DataConfig, seed: int, step: int, position: int) -> DeviceCrop:
        """The crop of one sample of one step."""
        rng = np.random.default_rng((seed, step, position))
        rows, columns = config.shape(seed, step)
        for _ in range(data.MAX_TRIES):
            choices = self._versions[int(rng.integers(len(self._versions)))]
            index = choices[0]
            if rng.random() < config.downscale and len(choices) > 1:
                index = choices[int(rng.integers(1, len(choices)))]
            _, height, width = self._places[index]
            if height >= rows and width >= columns:
                break
        else:
            raise data.no_picture_holds((rows, columns))
        top = int(rng.integers(0, height - rows + 1))
        left = int(rng.integers(0, width - columns + 1))
        flip = config.flip and rng.random() < 0.5
        turns = int(rng.integers(4)) if config.turn else 0
        if rows != columns:
            turns = turns // 2 * 2
        grey = bool(rng.random() < config.grey)
        below, right = (0, 0)
        if rng.random() < config.repeated_edges:
            below, right = (int(count) for count in rng.integers(0, data.MAX_REPEATED_PX + 1, 2))
        return DeviceCrop(index, top, left, flip, turns, grey, below, right)

    def gather(self, crops: Sequence[DeviceCrop], shape: tuple[int, int]) -> Tensor:
        """(len(crops), *shape, 3) uint8 on the device."""
        last_row, last_column = (side - 1 for side in shape)
        # Index of a crop's first sample, and how far from it the next row and column are.
        start, down, right = [], [], []
        for crop in crops:
            offset, _, width = self._places[crop.picture]
            # A row and a column of the result as steps (rows, columns) in the picture.
            across = (0, -1) if crop.flip else (0, 1)
            back = (0, -across[1])
            steps = [((1, 0), across), (back, (1, 0)), ((-1, 0), back), (across, (-1, 0))]
            per_row, per_column = steps[crop.turns]
            # The corner that the steps lead away from.
            y = crop.top + (last_row if per_row[0] + per_column[0] < 0 else 0)
            x = crop.left + (last_column if per_row[1] + per_column[1] < 0 else 0)
            start.append(offset + 3 * (y * width + x))
            down.append(3 * (per_row[0] * width + per_row[1]))
            right.append(3 * (per_column[0] * width + per_column[1]))
        device = self._flat.device
        rows = [last_row - crop.below for crop in crops]
        columns = [last_column - crop.right for crop in crops]
        numbers = np.array([start, down, right, rows, columns], np.int64)
        table = data.to_device(numbers, device)[..., None, None, None]
        row = torch.arange(shape[0], device=device)[:, None, None].minimum(table[3])
        column = torch.arange(shape[1], device=device)[:, None].minimum(table[4])
        channel = torch.arange(3, device=device)
        pixels = self._flat[table[0] + table[1] * row + table[2] * column + channel]
        if any(crop.grey for crop in crops):
            # The weights of Pillow's conversion to L.
            weights = torch.tensor(LUMA, device=device)
            luma = (pixels * weights).sum(dim=3, keepdim=True).round().to(torch.uint8)
            grey = data.to_device(np.array([crop.grey for crop in crops]), device)
            pixels = torch.where(grey[:, None, None, None], luma, pixels)
        return pixels


def device_batches(
    store: DeviceStore, config: data.DataConfig, seed: int, steps: range, positions: range
) -> Iterator[Tensor]:
    """The batches of `steps` in order; arguments as of :func:`.data.batches`."""
    for step in steps:
        crops = [store.draw(config, seed, step, position) for position in positions]
        yield store.gather(crops, config.shape(seed, step))
