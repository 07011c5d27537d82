"""The local page of `cwic serve`: drop a picture, ask for a size, paint where it matters, compare.

Owns what stands on the page and what its controls do. What a file is, a comparison or a map of the
bits is left to `Codec`, :mod:`cwic.evaluation.compare` and :mod:`cwic.view`, the server to Gradio.
Nothing on the page is loaded from elsewhere, and nothing is sent elsewhere.
"""

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic import bitstream, model_file
from cwic.codec import Codec, loaded, loaded_for
from cwic.defaults import DEFAULT_QUALITY, LOSSLESS
from cwic.errors import CodecError, CodecWarning, NotBuiltError
from cwic.evaluation import report
from cwic.evaluation.compare import compared, compared_page, installed
from cwic.image import encode_image, read_picture, to_pil
from cwic.saliency import has_detector
from cwic.view import overlay
from cwic.whole import WholeReader

__all__ = [
    "DEFAULT_PORT",
    "MAX_UPLOAD_BYTES",
    "Coded",
    "Wish",
    "coded",
    "frame",
    "opened",
    "page",
    "painted",
    "serve",
]

DEFAULT_PORT = 7860
MAX_UPLOAD_BYTES = 100 * 10**6

TITLE = "cwic: pictures small, and good where it matters"

_BEGIN = """
### Drop a picture to begin

- It is encoded and shown beside other codecs at the same size. Move the quality, or ask for a size.
- Paint over what matters and press *encode*: bits move there, the size stays.
- Download the `.cwic` file. Dropped here, it becomes a picture again.

All of it happens on the machine that serves this page.
"""

# What can be asked for, as it stands on the page.
_QUALITY, _BPP, _SIZE = "quality", "bits per pixel", "size in kB"

# Above and below the body of a page in a frame, and a little more, lest a bar to scroll appear.
_FRAME_MARGINS_PX = 72

_COMPARED_AT_FIRST = ("jpeg", "webp", "avif")

# A picture to paint on needs no more.
_CANVAS_PX = 640
# Larger pictures are compared by their middle, for the browser's sake.
_SHOWN_PX = 2048


class Wish(NamedTuple):
    """What the controls say."""

    aim: str = _QUALITY
    amount: float = DEFAULT_QUALITY  # of the quality, of bits per pixel or of kB
    strength: float = 1.0  # of what was painted
    by_itself: bool = False  # saliency
    model: str | None = None
    lossless: str = LOSSLESS[0]


class Coded(NamedTuple):
    """What came of it, or what a file holds."""

    original: Image.Image | None  # RGB; None if all there is is the file
    data: bytes  # the .cwic file
    decoded: Image.Image
    map: Image.Image  # where the bits went
    summary: str  # one line
    warnings: tuple[str, ...] = ()


def coded(path: str | os.PathLike[str], wish: Wish, mask: npt.NDArray[np.bool_] | None) -> Coded:
    """A picture file as the controls ask for it.

    Args:
        path: of a picture.
        wish: what the controls say.
        mask: True where it was painted; of any size. None: nowhere.

    Raises:
        CodecError: the picture cannot be read.
        ValueError: a number is out of range.
    """
    targets = {_QUALITY: "quality", _BPP: "bpp", _SIZE: "target_bytes"}
    amount: float = round(1000 * wish.amount) if wish.aim == _SIZE else wish.amount
    codec = loaded(wish.model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CodecWarning)
        picture = to_pil(read_picture(path))
        roi = None
        if mask is not None and mask.any():
            roi = np.asarray(Image.fromarray(mask).resize(picture.size))
        start_s = time.perf_counter()
        data = codec.encode(
            picture,
            roi=roi,
            roi_strength=wish.strength,
            saliency=wish.by_itself,
            lossless=wish.lossless,
            **{targets[wish.aim]: amount},  # type: ignore[arg-type]
        )
        seconds = time.perf_counter() - start_s
    said = tuple(str(warning.message) for warning in caught)
    done = f"{Path(path).name} encoded in {seconds:.2f} s"
    return _decoded(codec, data, done, picture.convert("RGB"), said)


def opened(path: str | os.PathLike[str]) -> Coded:
    """A .cwic file.

    Raises:
        CodecError: it is damaged, or of a model that is not here.
    """
    data = Path(path).read_bytes()
    return _decoded(loaded_for(data), data, Path(path).name)


def _decoded(
    codec: Codec | WholeReader,
    data: bytes,
    done: str,
    original: Image.Image | None = None,
    said: tuple[str, ...] = (),
) -> Coded:
    start_s = time.perf_counter()
    decoded = codec.decode(data)
    seconds = time.perf_counter() - start_s
    bpp = 8 * len(data) / (decoded.width * decoded.height)
    how = f" by {codec.name}"
    if bitstream.read_header(data).is_whole:
        how = ", kept whole"
    return Coded(
        original,
        data,
        decoded,
        overlay(decoded, codec.allocation(data)),
        f"{done}, decoded in {seconds:.2f} s{how}: {decoded.width}x{decoded.height}, "
        f"**{len(data):,} B, {bpp:.3f} bits per pixel**",
        said,
    )


def painted(editor: dict[str, Any] | None) -> npt.NDArray[np.bool_] | None:
    """Where an image editor's layers were painted: (h, w), or None for nowhere."""
    mask = None
    for layer in (editor or {}).get("layers") or ():
        own = np.asarray(layer.convert("RGBA"))[..., 3] > 0
        mask = own if mask is None else mask | own
    return mask


def frame(name: str, found: Coded, codecs: Sequence[str]) -> str:
    """HTML of the comparison with the original and other codecs; of a file alone, its picture.

    In a frame, because a comparison brings a script along.
    """
    if found.original is None:
        decoded = found.decoded.convert("RGB")
        decoded.thumbnail((_SHOWN_PX, _SHOWN_PX))
        html = report.page(name, [("", report.picture(name, np.asarray(decoded)))])
    else:
        html = compared_page(
            compared(name, found.original, found.data, found.decoded, codecs, largest_px=_SHOWN_PX)
        )
    return (
        '<iframe title="comparison" class="comparison" onload="'
        "const body = this.contentDocument.body; new ResizeObserver(() => { "
        f"this.style.height = body.offsetHeight + {_FRAME_MARGINS_PX} + 'px' }}).observe(body)\" "
        f'srcdoc="{escape(html)}"></iframe>'
    )


def page(models: Sequence[str]) -> Any:
    """The page, a Gradio `Blocks`.

    Args:
        models: to choose from, names or paths; the first is chosen.
    """
    gr = _gradio()
    others = [(codec.label, codec.name) for codec in installed()]
    # Uploads and results are forgotten after an hour.
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)
    ) as blocks:
        gr.Markdown(f"# {TITLE}")
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                dropped = gr.File(label="a picture, or a .cwic file", elem_id="dropped", height=160)
                aim = gr.Radio([_QUALITY, _BPP, _SIZE], value=_QUALITY, label="ask for")
                quality = gr.Slider(
                    0, 100, DEFAULT_QUALITY, step=1, label=_QUALITY, elem_id="quality"
                )
                bpp = gr.Slider(0.05, 2, 0.5, step=0.01, label=_BPP, visible=False)
                size = gr.Number(50, label=_SIZE, minimum=0.1, visible=False)
                with gr.Accordion("where it matters (the size stays)", open=True):
                    editor = gr.ImageEditor(
                        label="paint here",
                        type="pil",
                        sources=(),
                        transforms=(),
                        layers=False,
                        brush=gr.Brush(
                            default_size=40, colors=["rgb(255, 60, 60)"], color_mode="fixed"
                        ),
                        elem_id="editor",
                    )
                    strength = gr.Slider(0, 4, 1, step=0.1, label="strength")
                    by_itself = gr.Checkbox(
                        label="find it by itself", visible=has_detector(), value=False
                    )
                model = gr.Dropdown(list(models), value=models[0], label="model")
                lossless = gr.Radio(
                    list(LOSSLESS), value=LOSSLESS[0], label="keep it whole, with nothing lost"
                )
                against = gr.CheckboxGroup(
                    others,
                    value=[name for _, name in others if name in _COMPARED_AT_FIRST],
                    label="compare with, at the same size",
                )
                again = gr.Button("encode", variant="primary")
            with gr.Column(scale=3):
                said = gr.Markdown(_BEGIN, elem_id="report")
                shown = gr.HTML(elem_id="shown")
                download = gr.DownloadButton("download", visible=False, elem_id="download")
                bits = gr.Image(
                    label="importance map, and where the bits went",
                    format="png",
                    interactive=False,
                    visible=False,
                    elem_id="map",
                )
        outputs = [said, shown, bits, download]
        controls = [dropped, editor, aim, quality, bpp, size, strength, by_itself, model]
        controls += [lossless, against]

        def show_amount(aim: str) -> list[Any]:
            return [gr.update(visible=aim == name) for name in (_QUALITY, _BPP, _SIZE)]

        def start(path: str | None) -> Any:
            """A canvas of what was dropped."""
            if path is None or _is_file(path):
                return None
            with _said():
                picture = to_pil(read_picture(path)).convert("RGB")
            picture.thumbnail((_CANVAS_PX, _CANVAS_PX))
            return {"background": picture, "layers": [], "composite": None}

        def work(
            path: str | None,
            editor: dict[str, Any] | None,
            aim: str,
            quality: float,
            bpp: float,
            size: float,
            strength: float,
            by_itself: bool,
            model: str,
            lossless: str,
            against: list[str],
        ) -> Iterator[list[Any]]:
            if path is None:
                nothing = gr.update(visible=False)
                yield [_BEGIN, "", nothing, nothing]
                return
            name = Path(path).name
            # Gradio copies what is given for a download before it asks for more.
            with _said(), tempfile.TemporaryDirectory(prefix="cwic-") as folder:
                if _is_file(path):
                    found = opened(path)
                    file = Path(folder, name).with_suffix(".png")
                    data = encode_image(found.decoded, "PNG")
                else:
                    amount = {_QUALITY: quality, _BPP: bpp, _SIZE: size}[aim]
                    wish = Wish(aim, amount, strength, by_itself, model, lossless)
                    found = coded(path, wish, painted(editor))
                    file, data = Path(folder, name).with_suffix(".cwic"), found.data
                file.write_bytes(data)
                for warning in found.warnings:
                    gr.Warning(warning)
                yield [
                    found.summary,
                    frame(name, found, ()),
                    gr.update(value=found.map, visible=True),
                    gr.update(value=str(file), visible=True, label=f"download {file.name}"),
                ]
                if against and found.original is not None:
                    yield [gr.skip(), frame(name, found, against), gr.skip(), gr.skip()]

        aim.change(show_amount, aim, [quality, bpp, size])
        does: dict[str, Any] = {
            "fn": work,
            "inputs": controls,
            "outputs": outputs,
            "show_progress_on": shown,
        }
        dropped.upload(start, dropped, editor).then(**does)
        dropped.clear(**does)
        again.click(**does)
        for slider in (quality, bpp, strength):
            slider.release(**does)
    return blocks


def serve(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    max_upload_bytes: int = MAX_UPLOAD_BYTES,
    model: str | None = None,
    say: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves the page until it is interrupted.

    Args:
        host: address to listen on; anyone who reaches it can use the page.
        port: to listen on.
        max_upload_bytes: larger files are refused.
        model: that is chosen at first, a name or a path; None: the default model.
        say: is told the page's address once it is there.

    Raises:
        CodecError: the port is not to be had, or Gradio is not installed.
        ModelError: there is no such model.
    """
    gr = _gradio()
    names = [info.name for info in model_file.bundled_models()]
    first = model or model_file.DEFAULT_MODEL
    loaded(first)
    blocks = page([first, *(name for name in names if name != first)])
    try:
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            show_error=True,
            prevent_thread_lock=True,
            max_file_size=max_upload_bytes,
            footer_links=[],
            ssr_mode=False,
            theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            css=_STYLE,
        )
    except OSError as error:
        raise CodecError(
            f"port {port} of {host} is not to be had: {' '.join(str(error).split())}; --port "
            "names another"
        ) from error
    say(str(address))
    blocks.block_thread()


def _is_file(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(len(bitstream.MAGIC)) == bitstream.MAGIC


@contextmanager
def _said() -> Iterator[None]:
    """Errors as the page says them."""
    try:
        yield
    except (CodecError, OSError, ValueError, MemoryError) as error:
        raise _gradio().Error(str(error) or type(error).__name__, duration=None) from error


def _gradio() -> Any:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise NotBuiltError(
            f"the page needs Gradio, found no {error.name}: pip install 'cwic[demo]'"
        ) from error
    return gradio


_STYLE = """
iframe.comparison { width: 100%; height: 60vh; border: 0; }
"""
