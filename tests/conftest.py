"""Fixtures of several test modules: small pictures, and a small model that nobody trained."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from cwic import model_file
from cwic.cli.main import main
from cwic.codec import Codec
from cwic.evaluation.butteraugli import butteraugli_program

if TYPE_CHECKING:
    from torch import nn

    from cwic.training.cvpr2018.network import Cvpr2018Network
    from cwic.training.flagship.network import FlagshipNetwork


def script_module(name: str) -> ModuleType:
    """A program of `scripts/`, which is no module by its file's name."""
    script = Path(__file__).parent.parent / "scripts" / name
    module = ModuleType(name)
    module.__file__ = str(script)
    exec(compile(script.read_text(), str(script), "exec"), module.__dict__)
    return module


def colours_of(pixels: np.ndarray) -> int:
    """How many colours there are in (H, W, 3)."""
    return len(np.unique(pixels.reshape(-1, 3), axis=0))


def grained(drawing: np.ndarray) -> np.ndarray:
    """The same picture, (H, W) or (H, W, C) uint8, with pixels here and there off by some levels.

    It is cheap without loss, and much cheaper in fewer colours.
    """
    rng = np.random.default_rng(3)
    grain = rng.integers(1, 5, drawing.shape) * (
        rng.random((*drawing.shape[:2], 1)[: drawing.ndim]) < 0.08
    )
    return (drawing + grain).astype(np.uint8)


def page_with_photograph() -> np.ndarray:
    """(288, 304, 3) uint8: letters, and a photograph in rows 96 to 207 of columns 80 to 223."""
    rng = np.random.default_rng(5)
    letters = rng.random((24, 7, 5)) < 0.5
    page = np.full((288, 304, 3), (255, 253, 248), np.uint8)
    for top in range(4, 280, 12):
        for left in range(4, 296, 7):
            page[top : top + 7, left : left + 5][letters[rng.integers(24)]] = (20, 20, 30)
    y, x = np.mgrid[0:112, 0:144]
    wave = 120 + 60 * np.sin(x / 17) + 40 * np.cos(y / 11)
    photograph = wave[..., None] * (1, 0.8, 0.6) + rng.normal(0, 7, (112, 144, 3))
    page[96:208, 80:224] = photograph.clip(0, 255)
    return page


def seeded_picture(seed: int) -> np.ndarray:
    """(64..80, 80..112, 3) uint8: a smooth ground, a disc, a bar, and texture on one side."""
    rng = np.random.default_rng(seed)
    height, width = 64 + 8 * int(rng.integers(3)), 80 + 8 * int(rng.integers(5))
    y, x = np.mgrid[0:height, 0:width] / 64
    slope = rng.uniform(-60, 60, (2, 3))
    pixels = rng.uniform(80, 170, 3) + y[..., None] * slope[0] + x[..., None] * slope[1]
    disc = (y - rng.uniform(0.3, 0.7)) ** 2 + (x - rng.uniform(0.3, 1)) ** 2 < 0.06
    pixels[disc] = rng.uniform(0, 255, 3)
    pixels[np.abs(y + x - rng.uniform(0.6, 1.6)) < 0.08] = rng.uniform(0, 255, 3)
    waves = 25 * np.sin(rng.uniform(20, 50) * x) * np.sin(rng.uniform(20, 50) * y)
    pixels += np.where(x > 0.8, waves + rng.normal(0, 6, waves.shape), 0)[..., None]
    return pixels.clip(0, 255).round().astype(np.uint8)


@pytest.fixture(autouse=True)
def no_butteraugli(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests are the same, and as fast, where libjxl's program is installed."""
    monkeypatch.setattr("cwic.evaluation.butteraugli._PROGRAM", "none-of-that-name")
    butteraugli_program.cache_clear()


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 PNG pictures, none smaller than 64x80; sorted by name, the last is held out.

    Do not write into it.
    """
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(12):
        Image.fromarray(seeded_picture(number)).save(folder / f"picture{number:02}.png")
    return folder


@pytest.fixture(scope="session")
def one_torch_thread() -> Iterator[None]:
    """Networks of 8 channels run slower on two threads, and far slower on two busy cores."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _with_biases(network: "nn.Module") -> None:
    """Biases that differ: those of a fresh network are all zero."""
    import torch

    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.01)


@pytest.fixture(scope="session")
def tiny_network(one_torch_thread: None) -> "Cvpr2018Network":
    """A seeded 8-channel network that nobody trained, but as lively as one that was.

    A fresh network keeps its residual branches closed and its picture faint; this one does not.
    """
    import torch

    from cwic.training.cvpr2018.network import Cvpr2018Config, Cvpr2018Network
    from cwic.training.cvpr2018.transforms import ResidualBlock

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2019)
        network = Cvpr2018Network(Cvpr2018Config(width=1 / 16))
        torch.manual_seed(2042)  # its map is spread over all levels
        for module in network.modules():
            if isinstance(module, ResidualBlock):
                torch.nn.init.kaiming_uniform_(module.second.weight, nonlinearity="relu")
                with torch.no_grad():
                    module.second.weight.mul_(0.3)
        torch.nn.init.xavier_uniform_(network.synthesis.last.weight)
        torch.nn.init.xavier_uniform_(network.importance_net.layers[-1].weight, gain=5)
        _with_biases(network)
    return network.eval()


@pytest.fixture(scope="session")
def tiny_model(tiny_network: "Cvpr2018Network") -> model_file.ModelFile:
    """The model of `tiny_network`."""
    from cwic.training.cvpr2018.export import build_model

    return build_model(tiny_network, "tiny")


@pytest.fixture(scope="session")
def tiny_model_path(
    tiny_model: model_file.ModelFile, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The model file of `tiny_model`."""
    path = tmp_path_factory.mktemp("model") / ("tiny" + model_file.EXTENSION)
    model_file.save(tiny_model, path)
    return path


@pytest.fixture(scope="session")
def tiny_codec(tiny_model_path: Path) -> Codec:
    """A codec of `tiny_model`."""
    return Codec.load(tiny_model_path, threads=1)


@pytest.fixture(scope="session")
def tiny_flagship_network(one_torch_thread: None) -> "FlagshipNetwork":
    """A seeded network of the flagship's family that nobody trained, but lively in every part."""
    import torch

    from cwic.training.flagship.network import FlagshipConfig, FlagshipNetwork
    from cwic.training.flagship.transforms import EdgeBlock, ResidualBlock, SynthesisSizes

    sizes = FlagshipConfig(
        edge_channels=4,
        width_8=8,
        width_16=8,
        analysis_blocks_8=1,
        analysis_blocks_16=1,
        synthesis_blocks_8=1,
        synthesis_blocks_16=1,
        groups=(2, 4),
        detail_channels=3,
        hyper_channels=3,
        hyper_width=6,
        mean_width=8,
        scale_width=8,
        fast=SynthesisSizes(edge_channels=4, width_8=6, width_16=6, blocks_8=1, blocks_16=1),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2026)
        network = FlagshipNetwork(sizes)
        for module in network.modules():
            if isinstance(module, ResidualBlock | EdgeBlock):
                torch.nn.init.kaiming_uniform_(module.last.weight, a=2)
        torch.nn.init.xavier_uniform_(network.importance_net.last.weight, gain=6)
        torch.nn.init.xavier_uniform_(network.synthesis.edge.weight)
        torch.nn.init.xavier_uniform_(network.synthesis.enter_8.weight, gain=0.3)
        with torch.no_grad():
            network.analysis.to_latents.weight.mul_(4)
            network.hyper_analysis.to_64.weight.mul_(2)
            for step_network in (network.mean_network, network.scale_network):
                for head in step_network.head:
                    head.weight.mul_(3)
        _with_biases(network)
    return network.eval()


@pytest.fixture(scope="session")
def tiny_flagship_path(
    tiny_flagship_network: "FlagshipNetwork", tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The model file of `tiny_flagship_network`."""
    from cwic.training.flagship.export import build_model

    path = tmp_path_factory.mktemp("model") / ("tiny-flagship" + model_file.EXTENSION)
    model = build_model(tiny_flagship_network, "tiny-flagship", with_fast=True)
    model_file.save(model, path)
    return path


@pytest.fixture(scope="session")
def tiny_flagship_codec(tiny_flagship_path: Path) -> Codec:
    """A codec of `tiny_flagship_network`."""
    return Codec.load(tiny_flagship_path, threads=1)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """A headless Chromium, driven by Selenium, that downloads into `tmp_path`."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    # The last one: an editor of pictures paints by WebGL.
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--window-size=1600,1400",
        "--enable-unsafe-swiftshader",
    ):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    result = webdriver.Chrome(options=options, service=Service(driver))
    yield result
    result.quit()


# --- the command ----------------------------------------------------------------------------------

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process: exit code, standard output, standard error."""

    def run_words(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as usage:
            code = usage.code if isinstance(usage.code, int) else -1
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run_words


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A smooth picture with some edges, 96x64."""
    y, x = np.mgrid[0:64, 0:96]
    pixels = np.stack([2 * x, 3 * y, 128 + 90 * np.sin(x / 9) * np.cos(y / 7)], axis=-1)
    pixels[20:40, 30:60] = (230, 40, 40)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


@pytest.fixture
def encoded(run: Run, photo: Path) -> Path:
    """The `.cwic` file of `photo`, beside it."""
    assert run("encode", photo, "--quiet") == (0, "", "")
    return photo.with_suffix(".cwic")


def expect_one_line(result: tuple[int, str, str], name: str) -> None:
    """Checks that a command failed with one line that mentions a name."""
    code, out, err = result
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert name in err
