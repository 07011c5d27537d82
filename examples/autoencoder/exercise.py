"""From an autoencoder to content-weighted compression, in three small networks.

    python examples/autoencoder/exercise.py TRAIN [--out OUT] [--pictures FOLDER] [--steps 2000]

TRAIN is a folder of pictures; a tenth of them is held out. Trains, one after the other, the plain
autoencoder of the CVPR 2018 paper, the same with its binarizer, and that with its importance map,
prints a table of them and draws what the page beside this file explains:

    crops.jpg            what the data loader gives
    curves.png           error while training
    binarizer.png        its forward pass, its backward pass
    reconstructions.jpg  sample pictures and what each network makes of them
    map.jpg              where the bits go

Needs the extras `train` and `evaluate`. A run that was stopped goes on where it was.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from cwic.evaluation.metrics import measure
from cwic.training.checkpoint import load_weights
from cwic.training.cvpr2018.binarizer import binarize
from cwic.training.cvpr2018.network import Cvpr2018Config, Cvpr2018Network, Cvpr2018Output
from cwic.training.data import (
    DataConfig,
    PictureStore,
    augmented_crop,
    centre_crops,
    list_pictures,
)
from cwic.training.trainer import train

# Name, what it is, and its switches.
NETWORKS = (
    ("plain", "autoencoder", "binarizer = false\nimportance_map = false"),
    ("binary", "with binarizer", "importance_map = false"),
    ("map", "with importance map", "min_rate_offset = -1.0\nmax_rate_offset = -1.0"),
)
RECIPE = """\
family = "cvpr2018"
optimizer = "muon"
validate_every = 100000
validation_count = 2
validation_crop_px = 64
log_every = 10
[network]
width = 0.125
code_channels = 32
{switches}
[data]
crop_px = 64
downscale = 0.3
colour_jitter = 0.1
[[stages]]
name = "main"
steps = {steps}
batch = 8
warmup_steps = 20
learning_rate = 5e-3
final_learning_rate = 2e-4
"""
CROP_PX = 192
SHOWN, MEASURED = 3, 12  # sample pictures, held-out pictures
SAMPLES = Path(__file__).resolve().parent.parent / "samples"

Pixels = npt.NDArray[np.uint8]


def main() -> None:
    """Trains what is not trained yet, and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, metavar="TRAIN", help="with pictures")
    parser.add_argument("--out", type=Path, default=Path("runs/autoencoder"), help="of the runs")
    parser.add_argument("--pictures", type=Path, help="where to draw; else in the folder of runs")
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    out: Path = options.out
    shown: Path = options.pictures or out
    for folder in (out, shown):
        folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    samples = PictureStore(sorted(SAMPLES.glob("*.png")), 0, CROP_PX)
    save(draw_crops(samples), shown / "crops.jpg")
    networks = {}
    for name, _, switches in NETWORKS:
        recipe = out / f"{name}.toml"
        recipe.write_text(RECIPE.format(switches=switches, steps=options.steps))
        train(recipe, [options.folder], out / name)
        networks[name] = trained(out / name / "checkpoint.safetensors")
    save(draw_curves(out), shown / "curves.png")
    save(draw_binarizer(), shown / "binarizer.png")
    pictures = centre_crops(samples, CROP_PX, SHOWN)
    save(draw_reconstructions(pictures, networks), shown / "reconstructions.jpg")
    save(draw_map(pictures, networks["map"]), shown / "map.jpg")
    held_out = PictureStore(list_pictures([options.folder], 0.1).held_out, 0, CROP_PX)
    print_table(centre_crops(held_out, CROP_PX, MEASURED), networks, options.steps)


def save(figure: Figure, path: Path) -> None:
    """Photographs as JPEG, drawings as PNG, by the ending of the path."""
    figure.savefig(
        path, dpi=80, pil_kwargs={"quality": 88} if path.suffix == ".jpg" else {"optimize": True}
    )


def trained(checkpoint: Path) -> Cvpr2018Network:
    """The network of a run, its weights averaged."""
    config, _, weights = load_weights(checkpoint)
    assert isinstance(config.network, Cvpr2018Config)
    network = Cvpr2018Network(config.network)
    network.load_state_dict(weights)
    return network.eval()


def run(network: Cvpr2018Network, picture: Pixels) -> tuple[Pixels, Cvpr2018Output]:
    """(H, W, 3) -> what the network makes of it, and everything it says."""
    x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        output = network(x, network.config.max_rate_offset)
    decoded = ((output.reconstruction[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255)
    return decoded.numpy().astype(np.uint8), output


def kept_bpp(output: Cvpr2018Output, network: Cvpr2018Network) -> float | None:
    """Bits that the mask keeps for each pixel of the picture; None where there are no bits."""
    if not network.config.binarizer:
        return None
    return float(output.kept_fraction) * network.config.code_channels / 64


def print_table(pictures: Pixels, networks: dict[str, Cvpr2018Network], steps: int) -> None:
    """Markdown: means of each network over pictures it has not seen."""
    print(
        f"{steps} steps each; means over {len(pictures)} held-out crops of {CROP_PX} px a side.\n"
    )
    print("| network | PSNR dB | SSIM | bits kept a pixel |\n|---|---|---|---|")
    labels = {name: label for name, label, _ in NETWORKS}
    for name, network in networks.items():
        rows, rates = [], []
        for picture in pictures:
            decoded, output = run(network, picture)
            quality = measure(picture, decoded)
            rows.append((quality.psnr_rgb_db, quality.ssim_rgb))
            rates.append(kept_bpp(output, network))
        psnr_db, ssim = np.mean(rows, axis=0)
        found = [rate for rate in rates if rate is not None]
        rate = f"{np.mean(found):.3f}" if found else "no bits: real numbers"
        print(f"| {labels[name]} | {psnr_db:.2f} | {ssim:.3f} | {rate} |")


def draw_crops(store: PictureStore) -> Figure:
    """Sixteen augmented crops, four of each of four pictures."""
    config = DataConfig(crop_px=128, downscale=0.5, colour_jitter=0.2)
    figure, axes = plt.subplots(4, 4, figsize=(8, 8), layout="constrained")
    for row, axis_row in enumerate(axes):
        for column, axis in enumerate(axis_row):
            rng = np.random.default_rng((row, column))
            axis.imshow(augmented_crop(store[row % len(store)], config, (128, 128), rng))
            axis.axis("off")
    return figure


def draw_curves(out: Path) -> Figure:
    """PSNR of the batches, smoothed, of each run."""
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    for name, label, _ in NETWORKS:
        with (out / name / "log.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        steps = np.array([float(row["step"]) for row in rows])
        psnr_db = np.array([float(row["psnr_db"]) for row in rows])
        window = np.ones(9) / 9
        axis.plot(steps[4:-4], np.convolve(psnr_db, window, "valid"), label=label)
    axis.set(xlabel="step", ylabel="PSNR of the batch, dB")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def draw_binarizer() -> Figure:
    """B(e) of eq. 1, and the derivative that takes the place of its own."""
    e = torch.linspace(-0.5, 1.5, 401, requires_grad=True)
    bits = binarize(e)
    bits.sum().backward()  # type: ignore[no-untyped-call]
    assert e.grad is not None
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    axes[0].plot(e.detach(), bits.detach())
    axes[0].set(title="forward: B(e)", xlabel="e")
    axes[1].plot(e.detach(), e.grad)
    axes[1].set(title="backward: derivative of the proxy", xlabel="e")
    return figure


def draw_reconstructions(pictures: Pixels, networks: dict[str, Cvpr2018Network]) -> Figure:
    """Originals and what each network makes of them, with PSNR and SSIM."""
    columns = 1 + len(networks)
    figure, axes = plt.subplots(
        len(pictures), columns, figsize=(2.6 * columns, 2.9 * len(pictures)), layout="constrained"
    )
    labels = {name: label for name, label, _ in NETWORKS}
    for picture, row in zip(pictures, axes, strict=True):
        show(row[0], picture, "original")
        for axis, (name, network) in zip(row[1:], networks.items(), strict=True):
            decoded, output = run(network, picture)
            quality = measure(picture, decoded)
            text = f"{labels[name]}\n{quality.psnr_rgb_db:.2f} dB, SSIM {quality.ssim_rgb:.3f}"
            bpp = kept_bpp(output, network)
            if bpp is not None:
                text += f"\n{bpp:.3f} bits kept a pixel"
            show(axis, decoded, text)
    return figure


def draw_map(pictures: Pixels, network: Cvpr2018Network) -> Figure:
    """Pictures and their importance maps: how many bits each 8x8 cell keeps."""
    figure, axes = plt.subplots(2, len(pictures), figsize=(8, 5.5), layout="constrained")
    for picture, column in zip(pictures, axes.T, strict=True):
        _, output = run(network, picture)
        assert output.importance is not None
        show(column[0], picture, "")
        image = column[1].imshow(output.importance[0, 0], vmin=0, vmax=1, cmap="inferno")
        column[1].axis("off")
    figure.colorbar(image, ax=axes[1].tolist(), label="importance p")
    return figure


def show(axis: Any, picture: Pixels, title: str) -> None:
    """A picture without axes."""
    axis.imshow(picture)
    axis.set_title(title, fontsize=9)
    axis.axis("off")


if __name__ == "__main__":
    main()
