"""The models of the package: whole, and their output is finite."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import cwic
from cwic import model_file
from cwic.codec import Codec
from cwic.model_file import bundled_models


@pytest.mark.parametrize("info", bundled_models(), ids=lambda info: info.name)
def test_bundled_models_are_whole_and_their_output_is_finite(info: model_file.ModelInfo) -> None:
    """That the identity is the stored one is checked by `load`."""
    model = model_file.load(info.path)
    assert model.identity == info.identity
    assert model.name == info.name == info.path.stem
    codec = Codec(model, threads=1)
    assert codec.identity == info.identity
    rng = np.random.default_rng(6)
    y, x = np.mgrid[0:64, 0:96]
    smooth = np.stack([2 * x, 3 * y, 255 - x - y], axis=-1).astype(np.uint8)
    for pixels in (smooth, rng.integers(0, 256, smooth.shape).astype(np.uint8), 0 * smooth):
        for quality in (0, 50, 100):
            data = codec.encode(pixels, quality=quality, lossless="never")
            decoded = np.asarray(codec.decode(data))
            assert decoded.shape == pixels.shape
    # A graph that gives NaN gives an even picture of some value.
    data = codec.encode(smooth, quality=80, lossless="never")
    decoded = np.asarray(codec.decode(data)).astype(float)
    assert np.abs(decoded - smooth).mean() < 30


def test_the_models_are_found_where_the_package_is_imported_from_a_zip(tmp_path: Path) -> None:
    package = Path(cwic.__file__).parent
    archive = tmp_path / "app.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in package.rglob("*"):
            is_runtime = "training" not in path.parts and "__pycache__" not in path.parts
            if path.is_file() and is_runtime:
                file.write(path, path.relative_to(package.parent).as_posix())
    script = (
        "import pickle, numpy, cwic\n"
        "from cwic.codec import loaded_for\n"
        "from cwic.model_file import bundled_models, find\n"
        "print(*(f'{one.name} {one.size_bytes}' for one in bundled_models()))\n"
        "pixels = numpy.arange(64 * 64 * 3, dtype='uint8').reshape(64, 64, 3)\n"
        "data = cwic.encode(pixels, lossless='never')\n"
        "print(cwic.__file__, cwic.decode(data).size)\n"
        "again = pickle.loads(pickle.dumps(cwic.Codec.load(find(None))))\n"
        "print(again.decode(data).size)\n"
        "from cwic.cli.main import main\n"
        "main(['models'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(archive)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    models, decoded, again, *listed = done.stdout.splitlines()
    assert models == " ".join(f"{one.name} {one.size_bytes}" for one in bundled_models())
    assert decoded == f"{archive / 'cwic' / '__init__.py'} (64, 64)"
    assert again == "(64, 64)"
    assert len(listed) == 1 + len(bundled_models())
    assert os.listdir(tmp_path) == ["app.zip"]


@pytest.mark.parametrize("model", [5, b"cwic-visual", 1.5])
def test_a_model_that_is_neither_text_nor_a_path_is_refused(model: object) -> None:
    with pytest.raises(ValueError, match="model: expected a name or a path, found"):
        cwic.Codec.load(model)  # type: ignore[arg-type]
