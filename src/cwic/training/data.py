"""Pictures for training: folders in, batches of augmented uint8 crops out.

Every crop is a function of (seed, step, position in the batch) alone, so a resumed run, or one
spread over several processes, sees exactly the pictures of an unbroken one.
"""

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

from cwic.errors import CodecError, CodecWarning, TrainingError
from cwic.image import read_picture

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".ppm"})


@dataclass(frozen=True)
class DataConfig:
    """Where crops come from and what is done to them. Each augmentation is a switch."""

    crop_px: int = 128  # side of a square crop, a multiple of 8
    flip: bool = True  # mirror left-right half of the time
    turn: bool = False  # turn by 0, 90, 180 or 270 degrees
    downscale: float = 0.0  # share of crops taken from a picture shrunk by 1.1 to 2
    colour_jitter: float = 0.0  # brightness, contrast and saturation change by up to this share
    held_out: float = 0.1  # last share of each folder's sorted files, kept from training
    cache_mb: int = 4096  # decoded pictures kept in memory; the rest is read again at each use

    def __post_init__(self) -> None:
        if self.crop_px < 16 or self.crop_px % 8:
            raise ValueError(f"crop_px must be a multiple of 8, at least 16, found {self.crop_px}")
        for name in ("downscale", "colour_jitter", "held_out"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), found {getattr(self, name)}")


class PictureSplit(NamedTuple):
    """Files of a data set, in a fixed order."""

    training: list[Path]
    held_out: list[Path]


def list_pictures(folders: Sequence[Path], held_out: float) -> PictureSplit:
    """All pictures below the folders; of each folder the last share of the sorted names held out.

    Folders that hold only folders are entered: each folder with pictures of its own is split by
    itself, so that every source is present on both sides.

    Raises:
        TrainingError: a folder is missing or holds no picture.
    """
    training: list[Path] = []
    kept_back: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise TrainingError(f"{folder}: expected a folder of pictures, found none")
        by_parent: dict[Path, list[Path]] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in EXTENSIONS and path.is_file():
                by_parent.setdefault(path.parent, []).append(path)
        if not by_parent:
            known = " ".join(sorted(EXTENSIONS))
            raise TrainingError(f"{folder}: found no picture, expected files of {known}")
        for paths in by_parent.values():
            count = round(len(paths) * held_out)
            training += paths[: len(paths) - count]
            kept_back += paths[len(paths) - count :]
    return PictureSplit(training, kept_back)


class PictureStore:
    """Decoded pictures by index, cached as uint8 while they fit, read anew beyond that."""

    def __init__(self, paths: Sequence[Path], cache_mb: int, min_side_px: int):
        self._paths: list[Path] = []
        self._cache: dict[int, np.ndarray] = {}
        room = cache_mb * 1_000_000
        used = 0
        for path in paths:
            try:
                pixels = self._read(path)
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
            raise TrainingError(
                f"no usable picture among {len(paths)} files, "
                f"expected some of at least {min_side_px} px a side"
            )

    @staticmethod
    def _read(path: Path) -> np.ndarray:
        with warnings.catch_warnings():
            # 16 bits reduced to 8, first frame of several: fine for training.
            warnings.simplefilter("ignore", CodecWarning)
            return read_picture(path, keep_metadata=False).pixels

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        cached = self._cache.get(index)
        return self._read(self._paths[index]) if cached is None else cached


def augmented_crop(pixels: np.ndarray, config: DataConfig, rng: np.random.Generator) -> np.ndarray:
    """One training crop.

    Args:
        pixels: (H, W, 3) uint8, both sides at least `config.crop_px`.
        config: which augmentations.
        rng: source of every random choice.

    Returns:
        (crop_px, crop_px, 3) uint8.
    """
    side = config.crop_px
    height, width = pixels.shape[:2]
    shrink = rng.uniform(1.1, 2.0) if rng.random() < config.downscale else 1.0
    source = min(round(side * shrink), height, width)
    top = int(rng.integers(0, height - source + 1))
    left = int(rng.integers(0, width - source + 1))
    crop = pixels[top : top + source, left : left + source]
    if source != side:
        resized = Image.fromarray(crop).resize((side, side), Image.Resampling.LANCZOS)
        crop = np.asarray(resized)
    if config.flip and rng.random() < 0.5:
        crop = crop[:, ::-1]
    if config.turn:
        crop = np.rot90(crop, int(rng.integers(4)))
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
    """The crops of one training step.

    Args:
        store: training pictures.
        config: augmentations.
        seed: of the run.
        step: number of the step.
        positions: which samples of the whole batch this process owns.

    Returns:
        (len(positions), crop_px, crop_px, 3) uint8.
    """
    crops = []
    for position in positions:
        rng = np.random.default_rng((seed, step, position))
        crops.append(augmented_crop(store[int(rng.integers(len(store)))], config, rng))
    return np.stack(crops)


def batches(
    store: PictureStore,
    config: DataConfig,
    seed: int,
    steps: range,
    positions: range,
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

    Returns:
        (N, side_px, side_px, 3) uint8, N <= count.

    Raises:
        TrainingError: no picture is large enough.
    """
    wanted = sorted({round(i * (len(store) - 1) / max(1, count - 1)) for i in range(count)})
    crops = []
    for index in wanted:
        pixels = store[index]
        height, width = pixels.shape[:2]
        if min(height, width) >= side_px:
            top, left = (height - side_px) // 2, (width - side_px) // 2
            crops.append(pixels[top : top + side_px, left : left + side_px])
    if not crops:
        raise TrainingError(f"no held-out picture has {side_px} px a side")
    return np.stack(crops)
