"""The local page: what its controls do, and the page itself in a browser if there is one."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import seeded_picture
from PIL import Image

import cwic
from cwic import model_file
from cwic import serve as demo
from cwic.errors import CodecError, ImageError
from cwic.serve import Controls, coded, frame, opened, painted


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "photo.png"
    Image.fromarray(seeded_picture(11)).resize((300, 200)).save(path)
    return path


def test_a_picture_is_encoded_as_the_controls_say(photo: Path) -> None:
    plain = coded(photo, Controls(), None)
    assert plain.data == cwic.encode(photo)
    assert f"{len(plain.data):,} B" in plain.summary
    assert plain.decoded.size == (300, 200)
    assert plain.original is not None
    assert plain.original.size == (300, 200)
    assert coded(photo, Controls("quality", 20), None).data == cwic.encode(photo, quality=20)
    assert coded(photo, Controls("bits per pixel", 0.4), None).data == cwic.encode(photo, bpp=0.4)
    small = coded(photo, Controls("size in kB", 2.5), None).data
    assert small == cwic.encode(photo, target_bytes=2500)
    with pytest.raises(ValueError, match="bits per pixel: expected a number, found an empty field"):
        coded(photo, Controls("bits per pixel", None), None)


def test_a_file_is_the_same_as_the_command_makes_of_it(tmp_path: Path) -> None:
    """Alpha and metadata included."""
    tags = Image.Exif()
    tags[0x10F], tags[0x112] = "Make", 6
    picture = Image.fromarray(seeded_picture(11))
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    path = tmp_path / "photo.png"
    picture.save(path, exif=tags)
    found = coded(path, Controls(), None)
    assert found.data == cwic.encode(path)
    assert found.original is not None
    assert found.original.size == found.decoded.size == picture.size[::-1]


def test_what_cannot_be_met_is_said(photo: Path) -> None:
    found = coded(photo, Controls("size in kB", 0.05), None)
    assert len(found.warnings) == 1
    assert "the target is 50 B" in found.warnings[0]


def test_a_drawing_is_kept_whole_and_said_to_be(tmp_path: Path) -> None:
    y, x = np.mgrid[0:100, 0:150]
    Image.fromarray(((x + 2 * y) // 7 % 3 * 100).astype(np.uint8)).save(tmp_path / "drawing.png")
    found = coded(tmp_path / "drawing.png", Controls(), None)
    assert ", kept whole: 150x100" in found.summary
    (tmp_path / "drawing.cwic").write_bytes(found.data)
    assert ", kept whole: 150x100" in opened(tmp_path / "drawing.cwic").summary
    left = coded(tmp_path / "drawing.png", Controls(lossless="never"), None)
    assert "kept whole" not in left.summary


def test_bits_go_where_it_was_painted(photo: Path) -> None:
    mask = np.zeros((100, 150), bool)
    mask[:50, :60] = True
    # At a quality with room above it: this picture is as smooth as drawn ones.
    controls = Controls("quality", 30, strength=2)
    marked, plain = coded(photo, controls, mask), coded(photo, controls, None)
    assert len(marked.data) == pytest.approx(len(plain.data), rel=0.02)
    original = np.asarray(plain.original).astype(float)

    def mse(picture: Image.Image) -> float:
        return float(np.square(np.asarray(picture) - original)[:100, :120].mean())

    assert mse(marked.decoded) < 0.7 * mse(plain.decoded)
    assert coded(photo, controls, ~mask & mask).data == plain.data


def test_the_mask_is_what_the_layers_of_the_editor_have_in_them() -> None:
    layers = [Image.new("RGBA", (30, 20)) for _ in range(2)]
    layers[0].paste((255, 60, 60, 255), (0, 0, 10, 20))
    layers[1].paste((255, 60, 60, 128), (20, 0, 30, 20))
    mask = painted({"background": None, "layers": layers, "composite": None})
    assert mask is not None
    assert mask.mean() == pytest.approx(2 / 3)
    assert not mask[:, 10:20].any()
    assert painted(None) is None
    assert painted({"layers": []}) is None


def test_a_file_of_ours_is_opened(photo: Path, tmp_path: Path) -> None:
    file = tmp_path / "photo.cwic"
    file.write_bytes(cwic.encode(photo))
    found = opened(file)
    assert found.original is None
    np.testing.assert_array_equal(found.decoded, cwic.decode(file.read_bytes()))
    assert "photo.cwic" in found.summary
    shown = frame("photo.cwic", found, ())
    assert shown.count("&lt;img") == 1
    assert "original" not in shown
    assert frame("photo.png", coded(photo, Controls(), None), ()).count("&lt;img") == 2


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"^photo\.png: ") as caught:
        coded(path, Controls(), None)
    assert str(tmp_path) not in str(caught.value)


def test_a_port_that_is_taken_is_noticed_before_gradio_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CodecError, match=rf"port {port} of 127\.0\.0\.1.*--port"):
            demo.serve(port=port)
    with pytest.raises(CodecError, match=r"port \d+ of 192\.0\.2\.1 is not available"):
        demo.serve("192.0.2.1", port)  # an address that no machine has
    with pytest.raises(CodecError, match=r"address of this machine, found 'no\.such\.invalid'"):
        demo.serve("no.such.invalid", port)


# --- in a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model as a file of one's own."""
    return Path(shutil.copy(model_file.find(None), tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def address(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a page that is served."""
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cwic", "serve", "--port", str(port), "--max-upload", "1MB"]
    command += ["--model", str(model)]
    uploads = tmp_path_factory.mktemp("uploads")
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(uploads)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(f"http://127.0.0.1:{port}"), line
        yield line.partition(" ")[0]
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert [path for path in uploads.rglob("*") if path.is_file()] == [], "uploads are left"


def test_the_page_is_served_and_loads_nothing_from_elsewhere(address: str) -> None:
    with urllib.request.urlopen(address, timeout=20) as answer:
        html = answer.read().decode()
    assert demo.TITLE in html
    loaded = re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)=["']?(https?:[^"' >]+)""", html)
    assert [url for url in loaded if not url.startswith(address)] == []


@pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is this machine on Linux")
def test_the_page_listens_on_one_address_alone(address: str) -> None:
    port = int(address.rstrip("/").rpartition(":")[2])
    socket.create_connection(("127.0.0.1", port), timeout=20).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=20)


def test_an_upload_beyond_the_limit_is_refused(address: str) -> None:
    def upload(size_bytes: int) -> int:
        edge = b"--edge"
        about = b'Content-Disposition: form-data; name="files"; filename="photo.png"'
        body = edge + b"\r\n" + about + b"\r\n\r\n" + bytes(size_bytes) + b"\r\n" + edge + b"--\r\n"
        request = urllib.request.Request(
            f"{address.rstrip('/')}/gradio_api/upload",
            body,
            {"Content-Type": "multipart/form-data; boundary=edge"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert upload(900_000) == 200
    assert upload(1_100_000) == 413


def status(address: str, path: str = "", body: bytes | None = None, **headers: str) -> int:
    request = urllib.request.Request(address.rstrip("/") + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_page_refuses_other_names_and_uploads_from_other_pages(address: str) -> None:
    own = address.rstrip("/")
    port = own.rpartition(":")[2]
    assert status(address, Host=f"localhost:{port}") == 200
    assert status(address, Host=f"evil.example:{port}") == 403
    body = b"--edge--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=edge"}
    assert status(address, "/gradio_api/upload", body, Origin="http://evil.example", **kind) == 403
    assert status(address, "/gradio_api/upload", body, Origin="null", **kind) == 403
    assert status(address, "/gradio_api/upload", body, Origin=own, **kind) != 403


def test_answers_tell_no_path_of_the_server_and_files_come_back(address: str, model: Path) -> None:
    body = (
        b'--edge\r\nContent-Disposition: form-data; name="files"; filename="photo.png"\r\n\r\n'
        b"content\r\n--edge--\r\n"
    )
    request = urllib.request.Request(
        f"{address.rstrip('/')}/gradio_api/upload",
        body,
        {"Content-Type": "multipart/form-data; boundary=edge"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        (shown,) = json.loads(answer.read())
    assert shown.startswith("/upload")
    assert not Path(shown).exists()
    with urllib.request.urlopen(
        f"{address.rstrip('/')}/gradio_api/file={shown}", timeout=60
    ) as answer:
        assert answer.read() == b"content"
    for path in ("", "/config", "/gradio_api/info"):
        with urllib.request.urlopen(address.rstrip("/") + path, timeout=60) as answer:
            text = answer.read().decode()
        assert model.name in text or path == "/gradio_api/info"
        for secret in (
            str(model.parent),
            tempfile.gettempdir() + "/",
            str(Path(demo.__file__).parent),
            sys.prefix,
        ):
            assert secret not in text, (path, secret)


@pytest.mark.slow
def test_a_person_uploads_moves_paints_compares_downloads_and_opens_the_download(
    browser: Any, address: str, photo: Path, tmp_path: Path
) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, 60)

    def report() -> str:
        return str(browser.find_element(By.ID, "report").text)

    def reported_bytes() -> int:
        found = re.search(r"([\d,]+) B,", report())
        return int(found[1].replace(",", "")) if found else 0

    def upload(path: Path) -> None:
        browser.find_element(By.CSS_SELECTOR, "#dropped input[type=file]").send_keys(str(path))

    def click(text: str) -> None:
        browser.find_element(By.XPATH, f"//button[normalize-space()='{text}']").click()

    def downloaded(name: str) -> Path:
        wait.until(lambda _: (tmp_path / name).exists())
        return tmp_path / name

    browser.get(address)
    wait.until(lambda _: browser.find_elements(By.CSS_SELECTOR, "#dropped input[type=file]"))
    begin = report()
    upload(photo)
    wait.until(lambda _: reported_bytes() == len(cwic.encode(photo)))

    # Compare: the frame comes with JPEG and more, its slider moves the edge.
    def frame_has_jpeg(_: object) -> bool:
        browser.switch_to.default_content()
        frames = browser.find_elements(By.CSS_SELECTOR, "iframe.comparison")
        if not frames:
            return False
        browser.switch_to.frame(frames[0])
        return "JPEG" in browser.find_element(By.TAG_NAME, "body").text

    wait.until(frame_has_jpeg)
    browser.execute_script(
        "const slider = document.querySelector('.stage input');"
        "slider.value = 20; slider.dispatchEvent(new Event('input'));"
    )
    stage = browser.find_element(By.CSS_SELECTOR, ".stage")
    assert "--cut: 20%" in stage.get_attribute("style")
    versions = browser.find_elements(By.CSS_SELECTOR, ".stage img")
    assert len(versions) >= 4
    assert sum(version.is_displayed() for version in versions) == 2
    browser.switch_to.default_content()

    # Move: a lower quality is a smaller file.
    number = browser.find_element(By.CSS_SELECTOR, "#quality input[type=number]")
    browser.execute_script("arguments[0].select()", number)
    number.send_keys("20\t")
    plain = cwic.encode(photo, quality=20)
    wait.until(lambda _: reported_bytes() == len(plain))

    # Paint: the size stays, perhaps to the byte; the file is another, and so is its map.
    def map_shown() -> Any:
        return browser.execute_script("return document.querySelector('#map img')?.src")

    map_of_plain = map_shown()
    canvas = browser.find_element(By.CSS_SELECTOR, "#editor canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    pen = ActionChains(browser)
    pen.move_to_element_with_offset(canvas, -40, 0).click_and_hold().pause(0.2)
    for _ in range(8):
        pen.move_by_offset(10, 3)
    pen.pause(0.2).release().perform()
    time.sleep(1)
    click("encode")
    wait.until(lambda _: map_shown() not in (None, map_of_plain) and reported_bytes())
    click("download photo.cwic")
    data = downloaded("photo.cwic").read_bytes()
    assert data != plain
    assert len(data) == reported_bytes() == pytest.approx(len(plain), rel=0.02)

    # Open the download: the same picture comes back.
    browser.find_element(By.CSS_SELECTOR, "#dropped button[aria-label=Clear]").click()
    wait.until(lambda _: report() == begin)
    upload(downloaded("photo.cwic"))
    wait.until(lambda _: reported_bytes() == len(data))
    click("download photo.png")
    with Image.open(downloaded("photo.png")) as picture:
        np.testing.assert_array_equal(picture, cwic.decode(data))
    browser.save_screenshot(str(tmp_path / "page.png"))

    # Too much, and no picture.
    browser.find_element(By.CSS_SELECTOR, "#dropped button[aria-label=Clear]").click()
    (tmp_path / "text.png").write_text("no picture")
    wait.until(lambda _: report() == begin)
    upload(tmp_path / "text.png")
    wait.until(lambda _: "text.png" in browser.find_element(By.CSS_SELECTOR, ".toast-wrap").text)
