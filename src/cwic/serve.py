"""The local page of `cwic serve`: drop a picture, ask for a size, paint where it matters, compare.

Owns the layout of the page and what its controls do. Files are left to `Codec`, comparisons to
:mod:`cwic.evaluation.compare`, maps of the bits to :mod:`cwic.view`, the server to Gradio, and who
may talk to it to :mod:`cwic.page_guard`. The page loads nothing from elsewhere and sends nothing
elsewhere.
"""

import io
import os
import signal
import socket
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic import bitstream, defaults, model_file
from cwic.codec import Codec, loaded, loaded_for
from cwic.encoded_source import begins_coded
from cwic.errors import CodecError, CodecWarning, NotBuiltError, reason
from cwic.evaluation import report
from cwic.evaluation.compare import compared, compared_page, installed
from cwic.image import encode_image, profile_of_rgb_samples, read_picture, to_pil
from cwic.page_guard import PageGuard
from cwic.request import Request
from cwic.saliency import has_detector
from cwic.view import overlay
from cwic.whole import WholeReader

TITLE = "cwic: pictures small, and good where it matters"

_BEGIN = """
### Drop a picture to begin

- The page encodes it and compares it with other codecs at the same size. Choose quality or size.
- Paint over what matters and press *encode*: bits move there, and the size stays.
- Download the `.cwic` file. Drop it here to turn it into a picture again.

Everything happens on the machine that serves this page.
"""

# What a person can choose a target for.
_TARGETS = _QUALITY, _BPP, _SIZE = "quality", "bits per pixel", "size in kB"

# Above and below the body of a page in a frame, and a little more, so that no scroll bar appears.
_FRAME_MARGINS_PX = 72

# Selected when the page opens.
_COMPARED_AT_FIRST = ("jpeg", "webp", "avif")

# Longest side of the picture to paint on.
_CANVAS_PX = 640
# The page shows the middle of larger pictures, which a browser could not handle.
_SHOWN_PX = 2048


class Controls(NamedTuple):
    """What the controls of the page are set to."""

    target: str = _QUALITY
    # In 0..100, in bits per pixel or in kB; None: its field is empty.
    amount: float | None = defaults.DEFAULT_QUALITY
    strength: float = 1.0  # how much the painted mask counts
    find_saliency: bool = False
    model: str | None = None
    lossless: str = defaults.LOSSLESS[0]
    fast: bool = False  # whether the page shows what a fast decode makes of the file
    effort: int = 0

    def request(self, roi: npt.NDArray[np.bool_] | None) -> Request:
        """The same for `Codec.encode_request`, with a mask of the picture's size.

        Raises:
            ValueError: a number is out of range, or its field is empty.
        """
        if self.amount is None:
            raise ValueError(f"{self.target}: expected a number, found an empty field")
        return Request(
            quality=self.amount if self.target == _QUALITY else None,
            bpp=self.amount if self.target == _BPP else None,
            target_bytes=round(1000 * self.amount) if self.target == _SIZE else None,
            roi=roi,
            roi_strength=self.strength,
            saliency=self.find_saliency,
            lossless=self.lossless,
            effort=self.effort,
        )


class Coded(NamedTuple):
    """A `.cwic` file and all that the page shows of it."""

    original: Image.Image | None  # RGB; None if the file was opened and not made here
    data: bytes  # the .cwic file
    decoded: Image.Image
    map: Image.Image  # where the bits went
    summary: str  # one line of Markdown
    warnings: tuple[str, ...] = ()


def coded(
    path: str | os.PathLike[str], controls: Controls, mask: npt.NDArray[np.bool_] | None
) -> Coded:
    """Encodes a picture file; `mask` (h, w) of any size is True where the person painted.

    Raises:
        CodecError: the picture cannot be read.
        ValueError: a number is out of range.
    """
    codec = loaded(controls.model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CodecWarning)
        picture = to_pil(read_picture(_Upload(path)))
        roi = None
        if mask is not None and mask.any():
            roi = np.asarray(Image.fromarray(mask).resize(picture.size))
        start_s = time.perf_counter()
        data = codec.encode_request(picture, controls.request(roi)).data
        seconds = time.perf_counter() - start_s
    done = f"{Path(path).name} encoded in {seconds:.2f} s"
    return _decoded(codec, data, done, fast=controls.fast)._replace(
        original=picture.convert("RGB"), warnings=tuple(str(warning.message) for warning in caught)
    )


class _Upload(io.BytesIO):
    """The content of a file, with its name for messages: the path is nobody's business."""

    def __init__(self, path: str | os.PathLike[str]):
        super().__init__(Path(path).read_bytes())
        self.name = Path(path).name


def opened(path: str | os.PathLike[str], *, fast: bool = False) -> Coded:
    """Opens a `.cwic` file.

    Raises:
        CodecError: it is damaged, of a model that is not here, or of one that cannot decode `fast`.
    """
    data = Path(path).read_bytes()
    return _decoded(loaded_for(data), data, Path(path).name, fast=fast)


def _decoded(codec: Codec | WholeReader, data: bytes, done: str, *, fast: bool) -> Coded:
    """Decodes a file; `done` begins the summary."""
    start_s = time.perf_counter()
    decoded, allocation = codec.inspect(data, fast=fast)
    seconds = time.perf_counter() - start_s
    bpp = 8 * len(data) / (decoded.width * decoded.height)
    header = bitstream.read_header(data)
    how = f" by {codec.name}" if header.has_model else ""
    how += f", {header.exactness}" if header.exactness else ""
    summary = (
        f"{done}, decoded in {seconds:.2f} s{how}: {decoded.width}x{decoded.height}, "
        f"**{len(data):,} B, {bpp:.3f} bits per pixel**"
    )
    return Coded(None, data, decoded, overlay(decoded, allocation), summary)


def painted(editor: dict[str, Any] | None) -> npt.NDArray[np.bool_] | None:
    """Where the layers of an image editor are painted: (h, w), or None for nowhere."""
    mask = None
    for layer in (editor or {}).get("layers") or ():
        own = np.asarray(layer.convert("RGBA"))[..., 3] > 0
        mask = own if mask is None else mask | own
    return mask


def frame(name: str, found: Coded, codecs: Sequence[str]) -> str:
    """HTML of a frame with the comparison, or with the picture alone if there is no original.

    It is a frame because the page of a comparison has a script of its own. `name` is plain text,
    `codecs` are the names of the others.
    """
    if found.original is None:
        profile = profile_of_rgb_samples(found.decoded)
        decoded = found.decoded.convert("RGB")
        decoded.thumbnail((_SHOWN_PX, _SHOWN_PX))
        html = report.page(name, [("", report.picture(name, np.asarray(decoded), profile))])
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
    """The page, a Gradio `Blocks`; of the names or paths of models the first is selected."""
    gr = _gradio()
    # The page knows a model by name, and not where it lies.
    named = {Path(model).name: model for model in models}

    def results(*values: Any) -> Iterator[list[Any]]:
        inputs = _Inputs(*values)
        yield from _results(inputs._replace(model=named[inputs.model]))

    # Gradio deletes uploads and results after an hour.
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)
    ) as blocks:
        gr.Markdown(f"# {TITLE}")
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                inputs = _inputs(gr, named)
                again = gr.Button("encode", variant="primary")
            with gr.Column(scale=3):
                outputs = _outputs(gr)
        amounts = [inputs.quality, inputs.bpp, inputs.size_kb]
        inputs.target.change(_visible_amounts, inputs.target, amounts)
        update: dict[str, Any] = {
            "fn": results,
            "inputs": list(inputs),
            "outputs": outputs,
            "show_progress_on": outputs[1],
        }
        inputs.dropped.upload(_canvas, inputs.dropped, inputs.editor).then(**update)
        inputs.dropped.clear(**update)
        again.click(**update)
        for slider in (inputs.quality, inputs.bpp, inputs.strength):
            slider.release(**update)
    return blocks


class _Inputs(NamedTuple):
    """Components that a person sets, or their values."""

    dropped: Any
    editor: Any
    target: Any
    quality: Any
    bpp: Any
    size_kb: Any
    strength: Any
    find_saliency: Any
    model: Any
    lossless: Any
    fast: Any
    effort: Any
    codecs: Any


def _inputs(gr: Any, models: dict[str, str]) -> _Inputs:
    """The left column, from top to bottom."""
    names = list(models)
    others = [(codec.label, codec.name) for codec in installed()]
    dropped = gr.File(label="a picture, or a .cwic file", elem_id="dropped", height=160)
    target = gr.Radio(list(_TARGETS), value=_QUALITY, label="choose")
    quality = gr.Slider(0, 100, defaults.DEFAULT_QUALITY, step=1, label=_QUALITY, elem_id="quality")
    bpp = gr.Slider(0.05, 2, 0.5, step=0.01, label=_BPP, visible=False)
    size_kb = gr.Number(50, label=_SIZE, minimum=0.1, visible=False)
    with gr.Accordion("what matters (the size stays)", open=True):
        brush = gr.Brush(default_size=40, colors=["rgb(255, 60, 60)"], color_mode="fixed")
        editor = gr.ImageEditor(
            label="paint here",
            type="pil",
            sources=(),
            transforms=(),
            layers=False,
            brush=brush,
            elem_id="editor",
        )
        strength = gr.Slider(0, defaults.MAX_ROI_STRENGTH, 1, step=0.1, label="strength")
        find_saliency = gr.Checkbox(
            label="find it automatically", visible=has_detector(), value=False
        )
    model = gr.Dropdown(names, value=names[0], label="model")
    lossless = gr.Radio(
        list(defaults.LOSSLESS),
        value=defaults.LOSSLESS[0],
        label="keep without any loss: all, or text and graphics; or in fewer colours",
    )
    fast = gr.Checkbox(
        label="decode fast, nearly the same picture",
        visible=any(map(_decodes_fast, models.values())),
        value=False,
    )
    effort = gr.Slider(
        0,
        defaults.MAX_EFFORT,
        0,
        step=1,
        label="effort: seconds for a smaller file of the same quality",
    )
    codecs = gr.CheckboxGroup(
        others,
        value=[name for _, name in others if name in _COMPARED_AT_FIRST],
        label="compare with, at the same size",
    )
    return _Inputs(
        *(dropped, editor, target, quality, bpp, size_kb),
        *(strength, find_saliency, model, lossless, fast, effort, codecs),
    )


def _decodes_fast(model: str) -> bool:
    """Whether a model, by name or path, has the light synthesis."""
    return "fast" in model_file.read_info(model_file.find(model)).graphs


def _outputs(gr: Any) -> list[Any]:
    """The right column: report, frame, map and download."""
    report_text = gr.Markdown(_BEGIN, elem_id="report")
    comparison = gr.HTML(elem_id="shown")
    download = gr.DownloadButton("download", visible=False, elem_id="download")
    bits = gr.Image(
        label="importance map, and where the bits went",
        format="png",
        interactive=False,
        visible=False,
        elem_id="map",
    )
    return [report_text, comparison, bits, download]


def _visible_amounts(target: str) -> list[Any]:
    """Shows the control for the amount of the target, and hides the others."""
    return [_gradio().update(visible=target == name) for name in _TARGETS]


def _canvas(path: str | None) -> Any:
    """The picture to paint on; None for a `.cwic` file."""
    if path is None or begins_coded(path):
        return None
    with _errors_of_page():
        picture = to_pil(read_picture(_Upload(path))).convert("RGB")
    picture.thumbnail((_CANVAS_PX, _CANVAS_PX))
    return {"background": picture, "layers": [], "composite": None}


def _results(inputs: _Inputs) -> Iterator[list[Any]]:
    """What `_outputs` show, first without other codecs, which take longer."""
    gr = _gradio()
    if inputs.dropped is None:
        nothing = gr.update(visible=False)
        yield [_BEGIN, "", nothing, nothing]
        return
    name = Path(inputs.dropped).name
    # Gradio copies the file for the download before it asks for the next results.
    with _errors_of_page(), tempfile.TemporaryDirectory(prefix="cwic-") as folder:
        if begins_coded(inputs.dropped):
            found = opened(inputs.dropped, fast=inputs.fast)
            file = Path(folder, name).with_suffix(".png")
            data = encode_image(found.decoded, "PNG")
        else:
            found = coded(inputs.dropped, _controls(inputs), painted(inputs.editor))
            file, data = Path(folder, name).with_suffix(defaults.CODEC_SUFFIX), found.data
        file.write_bytes(data)
        for warning in found.warnings:
            gr.Warning(warning)
        yield [
            found.summary,
            frame(name, found, ()),
            gr.update(value=found.map, visible=True),
            gr.update(value=str(file), visible=True, label=f"download {file.name}"),
        ]
        if inputs.codecs and found.original is not None:
            yield [gr.skip(), frame(name, found, inputs.codecs), gr.skip(), gr.skip()]


def _controls(inputs: _Inputs) -> Controls:
    amounts = {_QUALITY: inputs.quality, _BPP: inputs.bpp, _SIZE: inputs.size_kb}
    return Controls(
        inputs.target,
        amounts[inputs.target],
        inputs.strength,
        inputs.find_saliency,
        inputs.model,
        inputs.lossless,
        inputs.fast,
        inputs.effort,
    )


def serve(
    host: str = defaults.HOST,
    port: int = defaults.PORT,
    *,
    max_upload_bytes: int = defaults.MAX_UPLOAD_BYTES,
    model: str | None = None,
    announce: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves the page until it is interrupted; anyone who reaches `host` by its names can use it.

    SIGTERM interrupts it too, if this is the main thread: uploads are deleted at the end.

    `model` is selected at first; None: the default model. `announce` is called with the address of
    the page as soon as it is served.

    Raises:
        CodecError: the port is not available, or Gradio is not installed.
        ModelError: there is no such model.
    """
    _check_port(host, port)
    gr = _gradio()
    names = [info.name for info in model_file.bundled_models()]
    first = model or model_file.DEFAULT_MODEL
    loaded(first)
    blocks = page([first, *(name for name in names if name != first)])
    from starlette.middleware import Middleware

    uploads = os.path.realpath(os.path.join(tempfile.gettempdir(), "gradio"))
    folder = os.path.abspath(os.environ.setdefault("GRADIO_TEMP_DIR", uploads))
    guard = Middleware(PageGuard, host=host, folder=folder)
    try:
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            # Of errors that are none of ours; they may tell anything.
            show_error=False,
            app_kwargs={"middleware": [guard]},
            prevent_thread_lock=True,
            max_file_size=max_upload_bytes,
            footer_links=[],
            ssr_mode=False,
            theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            css=_STYLE,
        )
    except OSError as error:
        raise _taken(host, port, error) from error
    with suppress(ValueError):  # this is not the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    announce(str(address))
    blocks.block_thread()


def _check_port(host: str, port: int) -> None:
    """Raises CodecError if the port is not available: Gradio takes seconds to find out."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            if os.name == "posix":  # as the server will, which may follow one that has just ended
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except socket.gaierror as error:
        raise CodecError(
            f"expected a name or an address of this machine, found {host!r}: {reason(error)}"
        ) from error
    except OSError as error:
        raise _taken(host, port, error) from error


def _taken(host: str, port: int, error: OSError) -> CodecError:
    return CodecError(
        f"port {port} of {host} is not available: {reason(error)}; --port selects another"
    )


@contextmanager
def _errors_of_page() -> Iterator[None]:
    """Turns errors into messages on the page."""
    try:
        yield
    except (CodecError, OSError, ValueError, MemoryError) as error:
        message = reason(error)
        raise _gradio().Error(message, duration=None, print_exception=False) from error


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
