"""Pictures for training: folders in, batches of augmented uint8 crops out.

Every crop is a function of (seed, step, position in the batch) alone, so a resumed run, or one
spread over several processes, sees exactly the pictures of an unbroken one.

A pack stands for a folder: a zip archive of pictures under `training/` and `held_out/`, which
`scripts/pack_pictures` writes. That all pictures lie on an accelerator is left to
:mod:`.device_store`.

Crops of one step have one shape. Where they need not be square, a run has a few shapes and each
step takes one of them.
"""

import io
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from cwic.errors import CodecError, CodecWarning, TrainingError
from cwic.image import read_picture

# A file of its own or one inside a pack.
PictureFile = Path | zipfile.Path

# The two parts of a pack.
PACK_TRAINING = "training"
PACK_HELD_OUT = "held_out"

# Sides of crops that need not be square are multiples of this; so many shapes a run has.
_SHAPE_MULTIPLE_PX = 16
_NUM_SHAPES = 16

# At most so many last rows, and columns, of a crop repeat the one before them.
MAX_REPEATED_PX = 15

# Pictures that are looked at for one that holds a crop.
MAX_TRIES = 100

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".ppm"})


@dataclass(frozen=True)
class DataConfig:
    """Where crops come from and what is done to them. Each augmentation is a switch."""

    crop_px: int = 128  # side of a square crop, a multiple of 8
    max_crop_px: int | None = None  # crops are rectangles, sides from crop_px to this
    flip: bool = True  # mirror left-right half of the time
    turn: bool = False  # turn by 0, 90, 180 or 270 degrees
    downscale: float = 0.0  # share of crops taken from a picture shrunk by 1.1 to 2
    grey: float = 0.0  # share of crops without colour
    repeated_edges: float = 0.0  # share of crops that end at the right and below as padding does
    colour_jitter: float = 0.0  # brightness, contrast and saturation change by up to this share
    held_out: float = 0.1  # last share of each folder's sorted files, kept from training
    cache_mb: int = 4096  # decoded pictures kept in memory; the rest is read again at each use
    on_device: Literal["auto", "always", "never"] = "auto"  # all pictures on the GPU; auto: if any

    def __post_init__(self) -> None:
        if self.crop_px < 16 or self.crop_px % 8:
            raise ValueError(f"crop_px must be a multiple of 8, at least 16, found {self.crop_px}")
        if self.cache_mb < 0:
            raise ValueError(f"cache_mb must not be negative, found {self.cache_mb}")
        if self.max_crop_px is not None and (
            self.max_crop_px < self.crop_px
            or self.crop_px % _SHAPE_MULTIPLE_PX
            or self.max_crop_px % _SHAPE_MULTIPLE_PX
        ):
            raise ValueError(
                f"max_crop_px must be at least crop_px, both multiples of {_SHAPE_MULTIPLE_PX}, "
                f"found {self.max_crop_px} and {self.crop_px}"
            )
        for name in ("downscale", "colour_jitter", "held_out", "grey", "repeated_edges"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), found {getattr(self, name)}")
        if self.on_device == "always" and self.colour_jitter:
            raise ValueError("colour_jitter cannot be done on the device")

    def shape(self, seed: int, step: int) -> tuple[int, int]:
        """Height and width of the crops of a step."""
        if self.max_crop_px is None:
            return self.crop_px, self.crop_px
        number = int(np.random.default_rng((seed, step, _NUM_SHAPES)).integers(_NUM_SHAPES))
        sides = np.arange(self.crop_px, self.max_crop_px + 1, _SHAPE_MULTIPLE_PX)
        # Both ends of the range are always there.
        if number < 2:
            return int(sides[-number]), int(sides[-number])
        height, width = np.random.default_rng((seed, number)).choice(sides, 2)
        return int(height), int(width)


class PictureSplit(NamedTuple):
    """Files of a data set, in a fixed order."""

    training: list[PictureFile]
    held_out: list[PictureFile]


def list_pictures(folders: Sequence[Path], held_out: float) -> PictureSplit:
    """All pictures below the folders; of each folder the last share of the sorted names held out.

    Each folder with pictures of its own is split by itself, so that every source is present on both
    sides. A pack comes split, and so does a folder with pictures under `training/` and `held_out/`.

    Raises:
        TrainingError: a folder is missing or holds no picture.
    """
    training: list[PictureFile] = []
    kept_back: list[PictureFile] = []
    for folder in folders:
        if folder.is_file() and zipfile.is_zipfile(folder):
            training += _packed(folder, PACK_TRAINING)
            kept_back += _packed(folder, PACK_HELD_OUT)
            continue
        if not folder.is_dir():
            raise TrainingError(f"{folder}: expected a folder of pictures, found none")
        by_parent: dict[Path, list[Path]] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in EXTENSIONS and path.is_file():
                by_parent.setdefault(path.parent, []).append(path)
        if not by_parent:
            known = " ".join(sorted(EXTENSIONS))
            raise TrainingError(f"{folder}: found no picture, expected files of {known}")
        for parent, paths in by_parent.items():
            within = parent.relative_to(folder).parts
            share = 0.0 if PACK_TRAINING in within else held_out
            count = round(len(paths) * (1.0 if PACK_HELD_OUT in within else share))
            training += paths[: len(paths) - count]
            kept_back += paths[len(paths) - count :]
    return PictureSplit(training, kept_back)


def kind_of(file: PictureFile) -> str:
    """What held-out pictures are measured together: those of one folder, by its name."""
    parents = str(file.parent).replace("\\", "/").split("/")
    return next(name for name in reversed(parents) if name not in (PACK_TRAINING, PACK_HELD_OUT))


def _packed(pack: Path, part: str) -> list[PictureFile]:
    """The pictures of one part of a pack, by name."""
    with zipfile.ZipFile(pack) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith(part + "/"))
    if not names and part == PACK_TRAINING:
        raise TrainingError(f"{pack}: expected pictures under {part}/ in this pack, found none")
    opened = zipfile.ZipFile(pack)  # stays open: its entries are read by and by
    return [zipfile.Path(opened, name) for name in names]


class PictureStore:
    """Decoded pictures by index, cached as uint8 while they fit, read anew beyond that."""

    def __init__(self, paths: Sequence[PictureFile], cache_mb: int, min_side_px: int):
        self._paths: list[PictureFile] = []
        self._cache: dict[int, np.ndarray] = {}
        room = cache_mb * 1_000_000
        used = 0
        for path in paths:
            try:
                pixels = read_pixels(path)
            except CodecError as error:
                # Named and skipped: one broken file must not end a run of days.
                warnings.warn(f"skipped: {error}", CodecWarning, stacklevel=2)
                continue
            if min(pixels.shape[:2]) < min_side_px:
                continue
            if used + pixels.nbytes <= room:
                self._cache[len(self._paths)] = pixels
                used += pixels.nbytes
            self._paths.append(path)
        if not self._paths:
            raise no_usable_picture(len(paths), min_side_px)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        cached = self._cache.get(index)
        return read_pixels(self._paths[index]) if cached is None else cached

    def draw(self, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """A random picture, (H, W, 3) uint8, that holds a crop of this shape.

        Raises:
            TrainingError: hardly any does.
        """
        for _ in range(MAX_TRIES):
            pixels = self[int(rng.integers(len(self)))]
            if pixels.shape[0] >= shape[0] and pixels.shape[1] >= shape[1]:
                return pixels
        raise no_picture_holds(shape)


def no_usable_picture(num_files: int, min_side_px: int) -> TrainingError:
    """The error of a store without a picture."""
    expected = f"expected some of at least {min_side_px} px a side"
    return TrainingError(f"no usable picture among {num_files} files, {expected}")


def no_picture_holds(shape: tuple[int, int]) -> TrainingError:
    """The error of a store in which hardly any picture holds a crop."""
    expected = f"expected pictures that hold a crop of {shape[1]}x{shape[0]} px"
    return TrainingError(f"{expected}, found none among {MAX_TRIES}")


def read_pixels(path: PictureFile) -> np.ndarray:
    """(H, W, 3) uint8."""
    source = io.BytesIO(path.read_bytes()) if isinstance(path, zipfile.Path) else path
    with warnings.catch_warnings():
        # 16 bits reduced to 8, first frame of several: fine for training.
        warnings.simplefilter("ignore", CodecWarning)
        return read_picture(source, keep_metadata=False).pixels


def augmented_crop(
    pixels: np.ndarray, config: DataConfig, shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """One training crop, (*shape, 3) uint8, of pixels (H, W, 3) that are at least as large.

    `rng` is the source of every random choice; the shape is that of :meth:`DataConfig.shape`.
    """
    height, width = pixels.shape[:2]
    shrink = rng.uniform(1.1, 2.0) if rng.random() < config.downscale else 1.0
    shrink = min(shrink, height / shape[0], width / shape[1])
    rows, columns = (round(side * shrink) for side in shape)
    top = int(rng.integers(0, height - rows + 1))
    left = int(rng.integers(0, width - columns + 1))
    crop = pixels[top : top + rows, left : left + columns]
    if (rows, columns) != shape:
        resized = Image.fromarray(crop).resize(shape[::-1], Image.Resampling.LANCZOS)
        crop = np.asarray(resized)
    if config.flip and rng.random() < 0.5:
        crop = crop[:, ::-1]
    if config.turn:
        # A rectangle stays one: by half a turn, or not at all.
        turns = int(rng.integers(4))
        crop = np.rot90(crop, turns if shape[0] == shape[1] else turns // 2 * 2)
    if config.grey and rng.random() < config.grey:
        crop = np.repeat(np.asarray(Image.fromarray(crop).convert("L"))[..., None], 3, axis=2)
    if config.repeated_edges and rng.random() < config.repeated_edges:
        crop = crop.copy()
        below, right = rng.integers(0, MAX_REPEATED_PX + 1, 2)
        crop[shape[0] - below :] = crop[shape[0] - below - 1]
        crop[:, shape[1] - right :] = crop[:, shape[1] - right - 1, None]
    if config.colour_jitter:
        image = Image.fromarray(np.ascontiguousarray(crop))
        for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            factor = 1 + config.colour_jitter * rng.uniform(-1, 1)
            image = enhancer(image).enhance(factor)
        crop = np.asarray(image)
    return np.ascontiguousarray(crop)


def batch_of_step(
    store: PictureStore, config: DataConfig, seed: int, step: int, positions: range
) -> np.ndarray:
    """The crops of one training step, (len(positions), H, W, 3) uint8, H and W those of the step.

    `positions`: which samples of the whole batch this process owns.
    """
    crops = []
    shape = config.shape(seed, step)
    for position in positions:
        rng = np.random.default_rng((seed, step, position))
        crops.append(augmented_crop(store.draw(shape, rng), config, shape, rng))
    return np.stack(crops)


def batches(
    store: PictureStore, config: DataConfig, seed: int, steps: range, positions: range
) -> Iterator[np.ndarray]:
    """The batches of `steps` in order, prepared two ahead in a thread of their own."""
    with ThreadPoolExecutor(max_workers=1) as worker:
        ahead = [
            worker.submit(batch_of_step, store, config, seed, step, positions) for step in steps[:2]
        ]
        try:
            for step in steps:
                following = step + 2 * steps.step
                if following in steps:
                    ahead.append(
                        worker.submit(batch_of_step, store, config, seed, following, positions)
                    )
                yield ahead.pop(0).result()
        finally:
            for pending in ahead:
                pending.cancel()


def centre_crops(store: PictureStore, side_px: int, count: int) -> np.ndarray:
    """Fixed crops for validation: the centres of up to `count` pictures spread over the store.

    (N, side_px, side_px, 3) uint8, N <= count.

    Raises:
        TrainingError: no picture is large enough.
    """
    indices = sorted({round(i * (len(store) - 1) / max(1, count - 1)) for i in range(count)})
    crops = []
    for index in indices:
        pixels = store[index]
        height, width = pixels.shape[:2]
        if min(height, width) >= side_px:
            top, left = (height - side_px) // 2, (width - side_px) // 2
            crops.append(pixels[top : top + side_px, left : left + side_px])
    if not crops:
        raise TrainingError(f"no held-out picture has {side_px} px a side")
    return np.stack(crops)


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """An array on a device, without waiting for what the device is busy with."""
    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
