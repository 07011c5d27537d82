# Study of 2026-11-26, frozen: ran at commit 9e40cf4, see README.md beside it.
"""How often metrics break orders of pictures that are known without asking anyone.

    python benchmarks/orderings.py FOLDER ... [--nets NETS] [--train]

Of crops of training pictures, files of several codecs at four qualities each, and pairs of them of
which one is plainly worse:

- quality: the same codec, the next lower of its four qualities. Every sensible metric knows most of
  these; they are here to show what that costs.
- codec: another codec that is no newer, at a third of the size or less.
- change: one of the lower two qualities of a codec against the highest of one whose picture was
  then moved by one pixel, made a little brighter or darker, or given a little more or less
  contrast.
- unseen: the same with changes that the weights were not trained on: turned by 0.5 degrees,
  enlarged by 1.5 %, a gamma of 0.88, a warmer white.

The weights of `FeatureDistance` are trained on the first three kinds on the pictures that training
uses, without WebP (--train writes them into the package); all counts are of the held-out tenth,
with WebP. Nobody has looked at these pairs: they say what a metric must not do, not that it agrees
with people. Needs the extras `train` and `evaluate`. NETS, or what the variable CWIC_NETS names,
holds SqueezeNet v1.1 as `FeatureDistance.load` says, `squeezenet_v1.1_caffe_bgr_fp32.pt`. If
LPIPS' channel weights for its own SqueezeNet, `lpips_v0.1_squeeze.pth`, are there too, they get a
row; over this trunk they are not LPIPS.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from tqdm import tqdm

from cwic import Codec
from cwic.evaluation.anchors import Contestant, contestant
from cwic.evaluation.metrics import measure
from cwic.evaluation.perceptual import WEIGHTS_FILE, FeatureDistance, trunk_digest
from cwic.training.data import PictureFile, PictureStore, list_pictures

TRUNK = "squeezenet_v1.1_caffe_bgr_fp32.pt"
PUBLISHED = "lpips_v0.1_squeeze.pth"
CROP_PX = 192
# Older to newer; a codec's pictures at a third of the size are worse than those of a codec that is
# no older.
GENERATIONS = {
    "jpeg": 0,
    "jpeg2000": 1,
    "webp": 1,
    "avif": 2,
    "cwic:cwic-psnr": 2,
    "cwic:cwic-visual": 2,
}
LEFT_OUT = "webp"  # of training
SIZE_RATIO = 3
KINDS = ("quality", "codec", "change", "unseen")

Pixels = npt.NDArray[np.uint8]  # (H, W, 3)


def moved(image: Image.Image, dx: float, dy: float) -> Image.Image:
    """A picture moved by parts of a pixel."""
    transform = (1, 0, dx, 0, 1, dy)
    return image.transform(image.size, Image.Transform.AFFINE, transform, Image.Resampling.BICUBIC)


def gamma(image: Image.Image, exponent: float) -> Image.Image:
    """A power of the values in [0, 1]."""
    return image.point([round(255 * (value / 255) ** exponent) for value in range(256)] * 3)


def enlarged(image: Image.Image, share: float) -> Image.Image:
    """The middle of a picture, a little larger."""
    cut = share * image.width / 2
    box = (cut, cut, image.width - cut, image.height - cut)
    return image.resize(image.size, Image.Resampling.BICUBIC, box)


def warmer(image: Image.Image) -> Image.Image:
    """More red, less blue."""
    pixels = np.asarray(image, np.float64) * (1.08, 1.0, 0.92)
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


CHANGES: tuple[Callable[[Image.Image], Image.Image], ...] = (
    lambda image: moved(image, 0.7, 0.7),
    lambda image: moved(image, 1, 0),
    lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    lambda image: ImageEnhance.Contrast(image).enhance(1.15),
    lambda image: ImageEnhance.Contrast(image).enhance(0.85),
)
UNSEEN: tuple[Callable[[Image.Image], Image.Image], ...] = (
    lambda image: image.rotate(0.5, Image.Resampling.BICUBIC),
    lambda image: enlarged(image, 0.015),
    lambda image: gamma(image, 0.88),
    warmer,
)


@dataclass(frozen=True)
class Version:
    """What became of a crop."""

    pixels: Pixels
    codec: str
    level: int  # 0 is the lowest quality; of a changed picture, that it was changed from
    file_bytes: int
    kind: str = ""  # of the change, if there was one


class Pair(NamedTuple):
    """Two versions of a crop, by index."""

    kind: str
    better: int
    worse: int


def crops(paths: Sequence[PictureFile], count: int, seed: int) -> list[Pixels]:
    """The most textured of four places in each of as many pictures."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(paths))
    found: list[Pixels] = []
    for index in order:
        if len(found) == count:
            break
        pixels = PictureStore([paths[index]], 0, 0)[0]
        rows, columns = (side - CROP_PX for side in pixels.shape[:2])
        if min(rows, columns) < 0:
            continue
        places = [(rng.integers(rows + 1), rng.integers(columns + 1)) for _ in range(4)]
        cut = [pixels[top : top + CROP_PX, left : left + CROP_PX] for top, left in places]
        found.append(
            max(cut, key=lambda crop: float(np.abs(np.diff(crop.astype(int), axis=0)).mean()))
        )
    return found


def texture(crop: Pixels) -> float:
    """Mean difference of a pixel from the one below."""
    return float(np.abs(np.diff(crop.astype(np.int16), axis=0)).mean())


def versions(crop: Pixels, codecs: Sequence[Contestant], rng: np.random.Generator) -> list[Version]:
    """All files of a crop, and changed pictures of the best of them."""
    image = Image.fromarray(crop)
    found: list[Version] = []
    for codec in codecs:
        for level, setting in enumerate(codec.settings[1::2]):
            data = codec.encode(image, setting)
            decoded = np.asarray(codec.decode(data).convert("RGB"))
            found.append(Version(decoded, codec.name, level, len(data)))
    best = [version for version in found if version.level == 3]
    for kind, changes in (("change", CHANGES), ("unseen", UNSEEN)):
        for change in rng.permutation(len(changes))[:3]:
            base = best[rng.integers(len(best))]
            changed = np.asarray(changes[change](Image.fromarray(base.pixels)))
            found.append(Version(changed, base.codec, base.level, base.file_bytes, kind))
    return found


def pairs(found: Sequence[Version], rng: np.random.Generator) -> list[Pair]:
    """Those of the versions whose order is known."""
    result: list[Pair] = []
    across: list[Pair] = []
    for better, a in enumerate(found):
        for worse, b in enumerate(found):
            if b.kind:
                continue
            if a.kind:
                if b.level <= 1:
                    result.append(Pair(a.kind, better, worse))
            elif a.codec == b.codec and a.level == b.level + 1:
                result.append(Pair("quality", better, worse))
            elif (
                a.codec != b.codec
                and a.level > b.level
                and GENERATIONS[a.codec] >= GENERATIONS[b.codec]
                and a.file_bytes >= SIZE_RATIO * b.file_bytes
            ):
                across.append(Pair("codec", better, worse))
    return result + [across[i] for i in rng.permutation(len(across))[: 3 * len(GENERATIONS)]]


def tensor(pixels: Sequence[Pixels]) -> Tensor:
    """(B, 3, H, W) float32 in [0, 255]."""
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float()


def differences(distance: FeatureDistance, crop: Pixels, found: Sequence[Version]) -> Tensor:
    """(versions, 2240)."""
    decoded = tensor([version.pixels for version in found])
    with torch.no_grad():
        return distance.differences(tensor([crop]).expand_as(decoded), decoded)


def trained_weights(better: Tensor, worse: Tensor, steps: int = 400) -> npt.NDArray[np.float32]:
    """Weights under which the worse pictures are further away, by their logarithms.

    Args:
        better: (pairs, 2240) differences of the better pictures.
        worse: same shape.
        steps: of Adam, each over all pairs.

    Returns:
        (2240,) none negative; the mean distance of the worse pictures is 1.
    """
    weights = torch.full((better.shape[1],), 1.0, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.02)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - step / steps)
        gap = torch.log(worse @ weights + 1e-6) - torch.log(better @ weights + 1e-6)
        loss = torch.nn.functional.softplus(-4 * gap).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            weights.clamp_(min=0)
    weights = weights.detach()
    return np.asarray(weights / (worse @ weights).mean())


def train(
    distance: FeatureDistance,
    paths: Sequence[PictureFile],
    codecs: Sequence[Contestant],
    count: int,
) -> npt.NDArray[np.float32]:
    """Channel weights from pairs of the kinds that training may see."""
    rng = np.random.default_rng(1)
    better, worse = [], []
    for crop in tqdm(crops(paths, count, 1), desc="training"):
        found = versions(crop, codecs, rng)
        described = differences(distance, crop, found)
        for pair in pairs(found, rng):
            if pair.kind != "unseen":
                better.append(described[pair.better])
                worse.append(described[pair.worse])
    print(f"{len(better)} pairs of {count} crops", file=sys.stderr)
    return trained_weights(torch.stack(better), torch.stack(worse))


def broken(
    distance: FeatureDistance,
    heads: dict[str, Tensor],
    paths: Sequence[PictureFile],
    codecs: Sequence[Contestant],
    count: int,
) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """How many pairs each metric orders wrongly or not at all, by kind, and how many there are."""
    rng = np.random.default_rng(2)
    total = dict.fromkeys(KINDS, 0)
    wrong: dict[str, dict[str, int]] = {}
    for crop in tqdm(crops(paths, count, 2), desc="held out"):
        found = versions(crop, codecs, rng)
        qualities = [measure(crop, version.pixels) for version in found]
        badness = {
            "PSNR": [-quality.psnr_rgb_db for quality in qualities],
            "SSIM": [-quality.ssim_rgb for quality in qualities],
            "MS-SSIM": [-quality.ms_ssim_rgb for quality in qualities],
            "HaarPSI": [-quality.haarpsi for quality in qualities],
        }
        described = differences(distance, crop, found)
        badness |= {name: (described @ weights).tolist() for name, weights in heads.items()}
        for pair in pairs(found, rng):
            total[pair.kind] += 1
            for name, values in badness.items():
                counts = wrong.setdefault(name, dict.fromkeys(KINDS, 0))
                counts[pair.kind] += not values[pair.better] < values[pair.worse]
    return wrong, total


def main() -> None:
    """Prints a Markdown table with a row for each metric."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="training pictures")
    parser.add_argument("--nets", type=Path, default=os.environ.get("CWIC_NETS"))
    parser.add_argument("--train", action="store_true", help="train and save the weights first")
    parser.add_argument("--crops", type=int, default=16, help="held-out crops")
    parser.add_argument("--training-crops", type=int, default=24)
    options = parser.parse_args()
    if options.nets is None:
        parser.error("expected --nets or the variable CWIC_NETS, the folder of the networks")
    trunk = Path(options.nets) / TRUNK
    torch.set_num_threads(1)
    split = list_pictures(options.folders, 0.1)
    codecs = [contestant(name) for name in GENERATIONS]
    uniform = np.ones(sum(FeatureDistance.CHANNELS), np.float32)
    distance = FeatureDistance.load(trunk, uniform)
    if options.train:
        seen = [codec for codec in codecs if codec.name != LEFT_OUT]
        weights = train(distance, split.training, seen, options.training_crops)
        file = resources.files("cwic.evaluation") / WEIGHTS_FILE
        Path(str(file)).write_bytes(weights.astype("<f2").tobytes())
    heads = {"features, even weights": distance.weights}
    published = Path(options.nets) / PUBLISHED
    if published.exists():
        other = torch.load(published, map_location="cpu", weights_only=True)
        heads["features, LPIPS' weights of another trunk"] = torch.cat(
            [other[f"lin{index}.model.1.weight"].flatten() for index in range(7)]
        )
    heads["features, trained weights"] = FeatureDistance.load(trunk).weights
    wrong, total = broken(distance, heads, split.held_out, codecs, options.crops)
    models = (Codec.load(name.partition(":")[2]) for name in GENERATIONS if ":" in name)
    print(
        f"Known orders broken, of {sum(total.values())} pairs of {options.crops} held-out crops of "
        f"{CROP_PX}x{CROP_PX}. "
        + ", ".join(f"{codec.name} {codec.identity.hex()}" for codec in models)
        + f"; trunk {trunk_digest(trunk)}.\n"
    )
    print("| metric | " + " | ".join(f"{kind}, of {total[kind]}" for kind in KINDS) + " | all |")
    print("|---" * (len(KINDS) + 2) + "|")
    for name, counts in wrong.items():
        shares = [f"{counts[kind]} ({counts[kind] / max(1, total[kind]):.1%})" for kind in KINDS]
        share = sum(counts.values()) / sum(total.values())
        print(f"| {name} | " + " | ".join(shares) + f" | {share:.1%} |")


if __name__ == "__main__":
    main()
