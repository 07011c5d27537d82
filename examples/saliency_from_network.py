"""A saliency map from a segmentation network: people, animals and vehicles get the bits.

    pip install --no-deps ai-edge-litert
    python examples/saliency_from_network.py PHOTO OUT.cwic --network FILE.tflite

FILE is DeepLabV3 for the 21 classes of PASCAL VOC, uint8 pictures in, classes out:
deeplabv3_mnv2_pascal_quant.tflite of google-coral/test_data on GitHub (Apache-2.0), no part of this
package. Any other detector does as well: what `saliency=` takes is a function of the pixels. The
decoder needs none of it.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, ImageOps

import cwic

BLUR_SHARE = 0.02  # of the longer side: a soft edge, so that none shows in the picture


class ObjectMask:
    """(H, W, 3) uint8 -> (H, W) in [0, 1]: 1 on whatever is not background."""

    def __init__(self, network: Path):
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter: Any = Interpreter(str(network))
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """The mask of a picture."""
        side = int(self._input["shape"][1])
        image = Image.fromarray(pixels)
        # The longer side fills the network's square; the rest of it is grey.
        inside = ImageOps.contain(image, (side, side))
        square = Image.new("RGB", (side, side), (128, 128, 128))
        square.paste(inside)
        self._interpreter.set_tensor(self._input["index"], np.asarray(square)[None])
        self._interpreter.invoke()
        classes = self._interpreter.get_tensor(self._output["index"]).reshape(side, side)
        objects = np.asarray(classes[: inside.height, : inside.width] > 0, np.uint8) * 255
        mask = Image.fromarray(objects).resize(image.size, Image.Resampling.BILINEAR)
        soft = mask.filter(ImageFilter.GaussianBlur(BLUR_SHARE * max(image.size)))
        return np.asarray(soft, np.float64) / 255


def main() -> None:
    """Encodes a photo with the mask, and says how much of it the mask covers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--bpp", type=float, default=0.25)
    options = parser.parse_args()
    if not options.network.is_file():
        sys.exit(f"{options.network}: no such file")
    detector = ObjectMask(options.network)
    with Image.open(options.photo) as file:
        share = float(detector(np.asarray(file.convert("RGB"))).mean())
    data = cwic.encode(options.photo, bpp=options.bpp, saliency=detector)
    options.out.write_bytes(data)
    print(f"{options.out}: {len(data):,} B; objects on {share:.0%} of the picture")


if __name__ == "__main__":
    main()
