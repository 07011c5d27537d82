"""Pictures on the device: crops that are gathered there."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")


from cwic.training.data import DataConfig, list_pictures  # noqa: E402
from cwic.training.device_store import DeviceCrop, DeviceStore, device_batches  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

CPU = torch.device("cpu")


def store_of(folder: Path, config: DataConfig) -> DeviceStore:
    return DeviceStore(list_pictures([folder], 0).training, config.crop_px, config, CPU)


def test_crops_on_the_device_are_what_numpy_cuts_out(picture_folder: Path) -> None:
    config = DataConfig(crop_px=24, flip=True, turn=True, downscale=0.5)
    store = store_of(picture_folder, config)
    paths = sorted(picture_folder.iterdir())
    assert len(store) == len(paths)
    crops = [store.draw(config, 5, step, position) for step in range(5) for position in range(8)]
    assert {crop.turns for crop in crops} == {0, 1, 2, 3}
    assert {crop.flip for crop in crops} == {False, True}
    gathered = store.gather(crops, (24, 24)).numpy()
    assert gathered.dtype == np.uint8
    sizes = set()
    for crop, found in zip(crops, gathered, strict=True):
        picture = store.version(crop.picture).numpy()
        sizes.add(picture.shape)
        cut = picture[crop.top : crop.top + 24, crop.left : crop.left + 24]
        np.testing.assert_array_equal(
            found, np.rot90(cut[:, ::-1] if crop.flip else cut, crop.turns)
        )
    originals = {np.asarray(Image.open(path)).shape for path in paths}
    assert sizes & originals
    assert sizes - originals  # copies are in use


def test_pictures_on_the_device_are_those_of_the_folder(picture_folder: Path) -> None:
    store = store_of(picture_folder, DataConfig(crop_px=24))
    for index, path in enumerate(sorted(picture_folder.iterdir())):
        np.testing.assert_array_equal(store.version(index).numpy(), np.asarray(Image.open(path)))


def test_a_crop_on_the_device_depends_on_seed_step_and_position_alone(
    picture_folder: Path,
) -> None:
    config = DataConfig(crop_px=24, downscale=0.3)
    store = store_of(picture_folder, config)
    whole = list(device_batches(store, config, 5, range(3), range(4)))
    later = list(device_batches(store_of(picture_folder, config), config, 5, range(2, 3), range(4)))
    assert torch.equal(whole[2], later[0])
    (half,) = device_batches(store, config, 5, range(1, 2), range(2, 4))
    assert torch.equal(whole[1][2:], half)
    assert not torch.equal(whole[0], whole[1])


def test_crops_stay_inside_their_picture(picture_folder: Path) -> None:
    config = DataConfig(crop_px=64)
    store = store_of(picture_folder, config)
    for position in range(200):
        crop = store.draw(config, 1, 0, position)
        height, width = store.version(crop.picture).shape[:2]
        assert 0 <= crop.top <= height - 64
        assert 0 <= crop.left <= width - 64
    assert store.gather([DeviceCrop(0, 0, 0, True, 3)], (64, 64)).shape == (1, 64, 64, 3)
