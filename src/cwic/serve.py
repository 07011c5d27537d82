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
from cwic.errors import CodecError, CodecWarning, NotBuiltError
from cwic.evaluation import report
from cwic.evaluation.compare import compared, compared_page, installed
from cwic.image import encode_image, read_picture, to_pil
from cwic.request import DEFAULT_QUALITY, LOSSLESS, Request
from cwic.saliency import has_detector
from cwic.view import overlay
from cwic.whole import WholeReader

__all__ = [
    "DEFAULT_PORT",
    "MAX_UPLOAD_BYTES",
    "Coded",
    "Controls",
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


class Controls(NamedTuple):
    """What the controls say."""

    aim: str = _QUALITY
    amount: float = DEFAULT_QUALITY  # of the quality, of bits per pixel or of kB
    strength: float = 1.0  # of what was painted
    by_itself: bool = False  # saliency
    model: str | None = None
    lossless: str = LOSSLESS[0]

    def request(self, roi: npt.NDArray[np.bool_] | None) -> Request:
        """What they ask for, and more of it where a mask is True."""
        size_bytes = round(1000 * self.amount) if self.aim == _SIZE else None
        return Request(
            quality=self.amount if self.aim == _QUALITY else None,
            bpp=self.amount if self.aim == _BPP else None,
            target_bytes=size_bytes,
            roi=roi,
            roi_strength=self.strength,
            saliency=self.by_itself,
            lossless=self.lossless,
        )


class Coded(NamedTuple):
    """What came of it, or what a file holds."""

    original: Image.Image | None  # RGB; None if all there is is the file
    data: bytes  # the .cwic file
    decoded: Image.Image
    map: Image.Image  # where the bits went
    summary: str  # one line
    warnings: tuple[str, ...] = ()


def coded(
    path: str | os.PathLike[str], controls: Controls, mask: npt.NDArray[np.bool_] | None
) -> Coded:
    """A picture file as the controls ask for it.

    Args:
        path: of a picture.
        controls: what they say.
        mask: True where it was painted; of any size. None: nowhere.

    Raises:
        CodecError: the picture cannot be read.
        ValueError: a number is out of range.
    """
    codec = loaded(controls.model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CodecWarning)
        picture = to_pil(read_picture(path))
        roi = None
        if mask is not None and mask.any():
            roi = np.asarray(Image.fromarray(mask).resize(picture.size))
        start_s = time.perf_counter()
        data = codec.encode_request(picture, controls.request(roi)).data
        seconds = time.perf_counter() - start_s
    notes = tuple(str(warning.message) for warning in caught)
    done = f"{Path(path).name} encoded in {seconds:.2f} s"
    return _decoded(codec, data, done, picture.convert("RGB"), notes)


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
    notes: tuple[str, ...] = (),
) -> Coded:
    start_s = time.perf_counter()
    decoded, allocation = codec.inspect(data)
    seconds = time.perf_counter() - start_s
    bpp = 8 * len(data) / (decoded.width * decoded.height)
    how = f" by {codec.name}"
    if bitstream.read_header(data).is_whole:
        how = ", kept whole"
    return Coded(
        original,
        data,
        decoded,
        overlay(decoded, allocation),
        f"{done}, decoded in {seconds:.2f} s{how}: {decoded.width}x{decoded.height}, "
        f"**{len(data):,} B, {bpp:.3f} bits per pixel**",
        notes,
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


class _Inputs(NamedTuple):
    """What a person sets on the page: the parts of Gradio, or what they hold."""

    dropped: Any
    editor: Any
    aim: Any
    quality: Any
    bpp: Any
    size: Any
    strength: Any
    by_itself: Any
    model: Any
    lossless: Any
    against: Any

    def controls(self) -> Controls:
        """What they hold, in short."""
        amount = {_QUALITY: self.quality, _BPP: self.bpp, _SIZE: self.size}[self.aim]
        return Controls(self.aim, amount, self.strength, self.by_itself, self.model, self.lossless)


class _Outputs(NamedTuple):
    """What the page shows."""

    summary: Any
    shown: Any
    bits: Any
    download: Any


def page(models: Sequence[str]) -> Any:
    """The page, a Gradio `Blocks`.

    Args:
        models: to choose from, names or paths; the first is chosen.
    """
    gr = _gradio()
    # Uploads and results are forgotten after an hour.
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)
    ) as blocks:
        gr.Markdown(f"# {TITLE}")
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                inputs, again = _inputs(gr, models)
            with gr.Column(scale=3):
                outputs = _outputs(gr)

        def show_amount(aim: str) -> list[Any]:
            return [gr.update(visible=aim == name) for name in (_QUALITY, _BPP, _SIZE)]

        inputs.aim.change(show_amount, inputs.aim, [inputs.quality, inputs.bpp, inputs.size])
        event: dict[str, Any] = {
            "fn": _work,
            "inputs": list(inputs),
            "outputs": list(outputs),
            "show_progress_on": outputs.shown,
        }
        inputs.dropped.upload(_canvas, inputs.dropped, inputs.editor).then(**event)
        inputs.dropped.clear(**event)
        again.click(**event)
        for slider in (inputs.quality, inputs.bpp, inputs.strength):
            slider.release(**event)
    return blocks


def _inputs(gr: Any, models: Sequence[str]) -> tuple[_Inputs, Any]:
    """The left column, and its button."""
    others = [(codec.label, codec.name) for codec in installed()]
    dropped = gr.File(label="a picture, or a .cwic file", elem_id="dropped", height=160)
    aim = gr.Radio([_QUALITY, _BPP, _SIZE], value=_QUALITY, label="ask for")
    quality = gr.Slider(0, 100, DEFAULT_QUALITY, step=1, label=_QUALITY, elem_id="quality")
    bpp = gr.Slider(0.05, 2, 0.5, step=0.01, label=_BPP, visible=False)
    size = gr.Number(50, label=_SIZE, minimum=0.1, visible=False)
    with gr.Accordion("where it matters (the size stays)", open=True):
        editor = gr.ImageEditor(
            label="paint here",
            type="pil",
            sources=(),
            transforms=(),
            layers=False,
            brush=gr.Brush(default_size=40, colors=["rgb(255, 60, 60)"], color_mode="fixed"),
            elem_id="editor",
        )
        strength = gr.Slider(0, 4, 1, step=0.1, label="strength")
        by_itself = gr.Checkbox(label="find it by itself", visible=has_detector(), value=False)
    model = gr.Dropdown(list(models), value=models[0], label="model")
    lossless = gr.Radio(list(LOSSLESS), value=LOSSLESS[0], label="keep it whole, with nothing lost")
    against = gr.CheckboxGroup(
        others,
        value=[name for _, name in others if name in _COMPARED_AT_FIRST],
        label="compare with, at the same size",
    )
    again = gr.Button("encode", variant="primary")
    return (
        _Inputs(
            dropped=dropped,
            editor=editor,
            aim=aim,
            quality=quality,
            bpp=bpp,
            size=size,
            strength=strength,
            by_itself=by_itself,
            model=model,
            lossless=lossless,
            against=against,
        ),
        again,
    )


def _outputs(gr: Any) -> _Outputs:
    """The right column."""
    return _Outputs(
        summary=gr.Markdown(_BEGIN, elem_id="report"),
        shown=gr.HTML(elem_id="shown"),
        download=gr.DownloadButton("download", visible=False, elem_id="download"),
        bits=gr.Image(
            label="importance map, and where the bits went",
            format="png",
            interactive=False,
            visible=False,
            elem_id="map",
        ),
    )


def _canvas(path: str | None) -> Any:
    """What was dropped, to be painted on."""
    if path is None or _is_file(path):
        return None
    with _errors_on_the_page():
        picture = to_pil(read_picture(path)).convert("RGB")
    picture.thumbnail((_CANVAS_PX, _CANVAS_PX))
    return {"background": picture, "layers": [], "composite": None}


def _work(*held: Any) -> Iterator[list[Any]]:
    """What the outputs show of what the inputs hold: our file first, then beside others."""
    gr = _gradio()
    inputs = _Inputs(*held)
    if inputs.dropped is None:
        nothing = gr.update(visible=False)
        yield [_BEGIN, "", nothing, nothing]
        return
    path, name = inputs.dropped, Path(inputs.dropped).name
    # Gradio copies what is given for a download before it asks for more.
    with _errors_on_the_page(), tempfile.TemporaryDirectory(prefix="cwic-") as folder:
        if _is_file(path):
            found = opened(path)
            file = Path(folder, name).with_suffix(".png")
            data = encode_image(found.decoded, "PNG")
        else:
            found = coded(path, inputs.controls(), painted(inputs.editor))
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
        if inputs.against and found.original is not None:
            yield [gr.skip(), frame(name, found, inputs.against), gr.skip(), gr.skip()]


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
def _errors_on_the_page() -> Iterator[None]:
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
