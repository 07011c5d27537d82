"""The entries of docs/desktop.md: type and magic are those of our files, thumbnails come out."""

import configparser
import mimetypes
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image

import cwic
from cwic import bitstream
from cwic.defaults import CODEC_MIME_TYPE

PAGE = (Path(__file__).parent.parent / "docs" / "desktop.md").read_text()
NAMESPACE = "{http://www.freedesktop.org/standards/shared-mime-info}"


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found, language
    return found[1]


def test_the_type_of_the_desktop_is_that_of_our_files() -> None:
    # Without its first line: text that says its encoding is not taken.
    root = ElementTree.fromstring(block("xml").partition("\n")[2])
    (entry,) = root.findall(f"{NAMESPACE}mime-type")
    assert entry.get("type") == CODEC_MIME_TYPE
    (glob,) = entry.findall(f"{NAMESPACE}glob")
    assert glob.get("pattern") == "*.cwic"
    magic = bytearray()
    for match in entry.iter(f"{NAMESPACE}match"):
        assert match.get("offset") == str(len(magic))
        size_bytes = int(str(match.get("type")).removeprefix("big")) // 8
        magic += int(str(match.get("value")), 16).to_bytes(size_bytes, "big")
    assert magic == bitstream.MAGIC
    assert magic.hex(" ").upper() in PAGE


@pytest.mark.skipif(sys.platform == "win32" or not shutil.which("cwic"), reason="needs the command")
def test_the_thumbnailer_makes_a_picture(encoded: Path, tmp_path: Path) -> None:
    entry = configparser.ConfigParser(interpolation=None)
    entry.read_string(block("ini"))
    thumbnailer = entry["Thumbnailer Entry"]
    assert thumbnailer["MimeType"] == f"{CODEC_MIME_TYPE};"
    odd = encoded.rename(tmp_path / "a $(b) 'c.cwic")
    made = tmp_path / "thumbnail of no suffix"
    values = {"%i": str(odd), "%o": str(made)}
    words = [values.get(word, word) for word in shlex.split(thumbnailer["Exec"])]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with Image.open(made) as picture:
        assert (picture.format, picture.size) == ("PNG", (12, 8))


@pytest.mark.parametrize("first", ["cwic.Codec", "import cwic.serve"])
def test_who_makes_files_can_serve_them(first: str) -> None:
    script = f"import mimetypes, cwic; {first}; print(*mimetypes.guess_type('photo.cwic'))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == f"{CODEC_MIME_TYPE} None\n"


def test_python_knows_the_type_once_the_plugin_is_registered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mimetypes, "_db", mimetypes.MimeTypes())
    assert mimetypes.guess_type("photo.cwic") == (None, None)
    cwic.register_pillow_plugin()
    assert mimetypes.guess_type("photo.cwic") == (CODEC_MIME_TYPE, None)
    assert mimetypes.guess_extension(CODEC_MIME_TYPE) == ".cwic"
