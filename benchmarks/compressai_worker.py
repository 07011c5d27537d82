"""One codec of CompressAI, run by the interpreter of an environment that has it, and torch.

    python benchmarks/compressai_worker.py serve ARCHITECTURE QUALITY THREADS
    python benchmarks/compressai_worker.py encode ARCHITECTURE WEIGHTS THREADS PICTURE FILE
    python benchmarks/compressai_worker.py decode ARCHITECTURE WEIGHTS THREADS FILE PICTURE

`serve` is for times within a process: it reads lines of JSON, `{"do": ..., ...}`, and answers each
with one. `encode` and `decode` are what a program of one's own would be, from imports to the
written file. Weights are freshly initialised, with a seed: those that were trained lie behind a
download, and time hardly depends on them.

CompressAI imports torchvision, torch_geometric, pandas and requests for parts that no codec of
pictures uses. Where they are not installed, empty modules stand in, which is to its advantage.
"""

import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import re
import struct
import sys
import time
from types import ModuleType
from typing import Any

STAND_INS = ("torchvision", "torch_geometric", "pandas", "requests")
SEED = 2018


class _StandIn(ModuleType):
    """Has any class that is asked for; each can be called, decorate, and be a base."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda *_, **__: None, "__call__": lambda _, what: what})


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Asked last, so only for what is not installed."""

    def find_spec(self, name: str, *_: Any) -> Any:
        if name.partition(".")[0] not in STAND_INS:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to do."""


def installed_bytes(names: list[str]) -> int:
    """Of distributions and all they require, as far as they are installed, in this environment."""
    seen: set[str] = set()
    total = 0
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name in seen or name in (text.replace("_", "-") for text in STAND_INS):
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in found.files or ():
            path = found.locate_file(file)
            total += path.stat().st_size if path.is_file() else 0  # type: ignore[attr-defined]
        for requirement in found.requires or ():
            wanted = re.match(r"[\w.-]+", requirement)
            if wanted and "extra ==" not in requirement:
                names.append(wanted[0])
    return total


class Codec:
    """An architecture on the CPU; pictures are uint8 arrays, files are bytes."""

    def __init__(self, architecture: str, *, quality: int = 0, weights: str = "", threads: int = 0):
        import torch
        from compressai.zoo import image_models

        if threads:
            torch.set_num_threads(threads)
        torch.manual_seed(SEED)
        self.torch = torch
        with torch.no_grad():
            if weights:
                state = torch.load(weights, weights_only=True)
                model_class = type(image_models[architecture](quality=1, pretrained=False))
                self.model = model_class.from_state_dict(state).eval()
            else:
                self.model = image_models[architecture](quality=quality, pretrained=False).eval()
                self.model.update()

    def encode(self, pixels: Any) -> bytes:
        """(H, W, 3) uint8 to bytes, padded as CompressAI's own example pads."""
        torch = self.torch
        height, width = pixels.shape[:2]
        with torch.no_grad():
            x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
            x = torch.nn.functional.pad(x, (0, -width % 64, 0, -height % 64))
            out = self.model.compress(x)
        strings = [of_part[0] for of_part in out["strings"]]
        head = struct.pack("<5H", height, width, *out["shape"], len(strings))
        return head + b"".join(struct.pack("<I", len(one)) + one for one in strings)

    def decode(self, data: bytes) -> Any:
        """The inverse, to (H, W, 3) uint8."""
        torch = self.torch
        height, width, rows, columns, count = struct.unpack_from("<5H", data)
        strings, position = [], 10
        for _ in range(count):
            (length,) = struct.unpack_from("<I", data, position)
            strings.append([data[position + 4 : position + 4 + length]])
            position += 4 + length
        with torch.no_grad():
            x = self.model.decompress(strings, (rows, columns))["x_hat"]
            pixels = (x[0, :, :height, :width] * 255).round().clamp(0, 255).byte()
            return pixels.permute(1, 2, 0).contiguous().numpy()

    def kmacs_per_pixel(self) -> float:
        """Of analysis and synthesis."""
        torch = self.torch
        side, total = 256, 0.0

        def count(module: Any, inputs: Any, output: Any) -> None:
            nonlocal total
            # A transposed convolution spends its kernel on every position that it reads.
            transposed = isinstance(module, torch.nn.ConvTranspose2d)
            positions = (inputs[0] if transposed else output).shape[2:].numel()
            total += module.weight.numel() * positions / side**2 / 1000

        hooks = [
            module.register_forward_hook(count)
            for part in (self.model.g_a, self.model.g_s)
            for module in part.modules()
            if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
        ]
        with torch.no_grad():
            self.model.g_s(self.model.g_a(torch.zeros(1, 3, side, side)))
        for hook in hooks:
            hook.remove()
        return total


def seconds_of(act: Any) -> tuple[float, Any]:
    """How long a call takes, and what it gives."""
    start_s = time.perf_counter()
    result = act()
    return time.perf_counter() - start_s, result


def serve(architecture: str, quality: int, threads: int) -> None:
    """Answers until its input ends."""
    import compressai
    import numpy as np
    import torch

    codec = Codec(architecture, quality=quality, threads=threads)
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, Any] = {}
        if asked["do"] == "facts":
            answer = {
                "compressai": compressai.__version__,
                "torch": torch.__version__,
                "kmacs": codec.kmacs_per_pixel(),
                "bytes": installed_bytes(["compressai"]),
            }
        elif asked["do"] == "save":
            torch.save(codec.model.state_dict(), asked["weights"])
        elif asked["do"] == "measure":
            pixels = np.load(asked["pixels"])
            encode_s, data = seconds_of(lambda p=pixels: codec.encode(p))
            decode_s, _ = seconds_of(lambda d=data: codec.decode(d))
            answer["times"] = [encode_s, decode_s]
        print(json.dumps(answer), flush=True)


def main(what: str, architecture: str, *rest: str) -> None:
    """One of the three."""
    sys.meta_path.append(_StandIns())
    if what == "serve":
        serve(architecture, int(rest[0]), int(rest[1]))
        return
    import numpy as np
    from PIL import Image

    weights, threads, source, target = rest
    codec = Codec(architecture, weights=weights, threads=int(threads))
    if what == "encode":
        with Image.open(source) as picture, open(target, "wb") as file:
            file.write(codec.encode(np.asarray(picture.convert("RGB")).copy()))
    else:
        with open(source, "rb") as file:
            Image.fromarray(codec.decode(file.read())).save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
