"""What `import cwic` promises: its names, and what stays unloaded."""

import subprocess
import sys
import tomllib
from pathlib import Path

import cwic

ROOT = Path(__file__).parent.parent


def test_the_public_names_are_these() -> None:
    assert cwic.__all__ == [
        "Codec",
        "CodecError",
        "Limits",
        "__version__",
        "decode",
        "encode",
        "read_header",
        "register_pillow_plugin",
    ]
    for name in cwic.__all__:
        assert hasattr(cwic, name)


def test_the_version_stands_in_one_line() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in table["project"]
    source = ROOT / table["tool"]["hatch"]["version"]["path"]
    assert source == Path(cwic.__file__)
    assert source.read_text().splitlines().count(f'__version__ = "{cwic.__version__}"') == 1


def loaded_after(code: str) -> set[str]:
    """Top-level modules in memory after running `code` in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


TORCH_METRICS = ("metrics", "perceptual", "ssimulacra2_distance", "structural_similarity")


def runtime_modules() -> list[str]:
    """Every module outside `training`, less the metrics that need torch."""
    package = ROOT / "src" / "cwic"
    paths = [path.relative_to(package.parent) for path in package.rglob("*.py")]
    return sorted(
        ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        for path in paths
        if "training" not in path.parts
        and path.name != "__main__.py"
        and path.stem not in TORCH_METRICS
    )


def test_nothing_outside_training_loads_torch() -> None:
    modules = runtime_modules()
    assert "cwic.codec" in modules
    loaded = loaded_after("import " + ", ".join(modules))
    assert not loaded & {"torch", "onnx", "safetensors"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_after("import cwic") & {"numpy", "PIL", "onnxruntime", "constriction"}


def test_reading_a_header_or_the_list_of_models_loads_nothing_heavy() -> None:
    script = "import cwic.bitstream, cwic.model_file; cwic.model_file.bundled_models()"
    assert not loaded_after(script) & {"numpy", "PIL", "onnxruntime", "constriction"}


def test_a_picture_kept_whole_is_decoded_without_the_runtime_of_networks() -> None:
    script = (
        "import cwic, cwic.whole, cwic.image\n"
        "from PIL import Image\n"
        "data = cwic.whole.pack_whole(cwic.image.read_picture(Image.new('RGB', (9, 5), 'red')))\n"
        "assert cwic.decode(data).getpixel((8, 4)) == (255, 0, 0)"
    )
    assert "onnxruntime" not in loaded_after(script)
