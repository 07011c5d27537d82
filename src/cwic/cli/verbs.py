"""What each verb does: options to calls of the package, and what came of them to messages.

Everything heavy is imported inside the verb that needs it, so that help and `info` are there at
once.
"""

import argparse
import io
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwic.cli.arguments import build_parser, input_path, location, request_of
from cwic.cli.files import (
    STDIO,
    check_target,
    display_name,
    files_of_folder,
    for_each_file,
    naming,
    picture_source,
    read,
    write,
)
from cwic.cli.messages import print_error, print_line, print_note
from cwic.defaults import CODEC_FORMAT, CODEC_SUFFIX, MAX_PIXELS, PICTURE_SUFFIXES
from cwic.errors import CodecError, CodecWarning, NotBuiltError, TrainingError

if TYPE_CHECKING:
    from cwic.bitstream import Header

__all__ = ["VERBS"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")

# So many failures of a batch are printed; its table has all.
_PRINTED_FAILURES = 20


# --- one file, or the files of one folder ---------------------------------------------------------


def encode(options: argparse.Namespace) -> int:
    """Pictures to `.cwic` files."""
    _one_blas_thread()
    return for_each_file(options, _encode_file, PICTURE_SUFFIXES, CODEC_SUFFIX)


def _encode_file(source: Path, target: Path, options: argparse.Namespace) -> None:
    import cwic

    start_s = time.perf_counter()
    picture = picture_source(source)
    if options.max_pixels is not None:
        from PIL import Image

        Image.MAX_IMAGE_PIXELS = options.max_pixels
    data = cwic.encode(picture, model=options.model, **request_of(options))
    write(data, target)
    seconds = time.perf_counter() - start_s
    header = _header(data)
    goal = ""
    if options.bpp is not None:
        goal = f" (target {options.bpp:g} bpp)"
    elif options.target_bytes is not None:
        goal = f" (target {options.target_bytes:,} B)"
    elif options.psnr_db is not None:
        reached = "" if header.is_whole else f", {_psnr_db(picture, data, options):.2f} dB"
        goal = f"{reached} (target {options.psnr_db:g} dB)"
    _print_result(source, target, _size_and_rate(data, header, goal), options)
    if options.verbose:
        print_note(f"{display_name(source)}: {_made_by(header)}, {seconds:.2f} s")


def _psnr_db(picture: Any, data: bytes, options: argparse.Namespace) -> float:
    """PSNR of a file against the picture it was made of, over R, G and B."""
    from cwic.evaluation.compare import psnr_db
    from cwic.image import read_picture

    if isinstance(picture, io.BytesIO):
        picture.seek(0)
    decoded = _decoded(data, options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CodecWarning)  # printed before
        pictures = (
            read_picture(source, max_pixels=options.max_pixels or MAX_PIXELS)
            for source in (picture, decoded)
        )
        return psnr_db(*(picture.pixels for picture in pictures))


def decode(options: argparse.Namespace) -> int:
    """`.cwic` files to pictures."""
    _one_blas_thread()
    suffixes = frozenset({CODEC_SUFFIX})
    return for_each_file(options, _decode_file, suffixes, f".{options.to or 'png'}")


def _decode_file(source: Path, target: Path, options: argparse.Namespace) -> None:
    from cwic.image import encode_image

    start_s = time.perf_counter()
    data = read(source)
    picture = _decoded(data, options, region=options.region, reduce=options.reduce)
    file_format = options.to or ("png" if target == STDIO else target.suffix)
    write(encode_image(picture, file_format), target)
    seconds = time.perf_counter() - start_s
    _print_result(source, target, f"{picture.width}x{picture.height}", options)
    if options.verbose:
        print_note(f"{display_name(source)}: {_made_by(_header(data))}, {seconds:.2f} s")


def _decoded(data: bytes, options: argparse.Namespace, **part: Any) -> Any:
    """The picture of a file, by the model that the options name or else a bundled one."""
    import cwic
    from cwic.codec import loaded_for

    max_pixels = getattr(options, "max_pixels", None)
    limits = None if max_pixels is None else cwic.Limits(max_pixels=max_pixels)
    codec = loaded_for(data, options.model, limits=limits)
    return codec.decode(data, limits=limits, **part)


def view(options: argparse.Namespace) -> int:
    """Pictures or `.cwic` files to pictures of where the bits go."""
    return for_each_file(options, _view_file, PICTURE_SUFFIXES | {CODEC_SUFFIX}, ".map.png")


def _view_file(source: Path, target: Path, options: argparse.Namespace) -> None:
    import cwic
    from cwic.codec import loaded_for
    from cwic.image import encode_image
    from cwic.view import overlay

    if source.suffix.lower() == CODEC_SUFFIX:
        data = read(source)
    else:
        request = request_of(options)
        picture = picture_source(source)
        data = cwic.encode(picture, model=options.model, keep_metadata=False, **request)
    codec = loaded_for(data, options.model)
    sheet = overlay(codec.decode(data), codec.allocation(data))
    write(encode_image(sheet, "PNG" if target == STDIO else target.suffix), target)
    _print_result(source, target, f"of {_size_and_rate(data, _header(data))}", options)


def compare(options: argparse.Namespace) -> int:
    """Pictures to pages that compare codecs."""
    return for_each_file(options, _compare_file, PICTURE_SUFFIXES, ".html")


def _compare_file(source: Path, target: Path, options: argparse.Namespace) -> None:
    import cwic
    from cwic.evaluation.compare import compared, compared_page
    from cwic.image import read_picture, to_pil

    picture = to_pil(read_picture(picture_source(source), keep_metadata=False)).convert("RGB")
    data = cwic.encode(picture, model=options.model, **request_of(options))
    comparison = compared(display_name(source), picture, data, _decoded(data, options))
    write(compared_page(comparison).encode(), target)
    _print_result(source, target, f"at {_size_and_rate(data, _header(data))}", options)


def _one_blas_thread() -> None:
    """Keeps numpy, which is loaded after this, from starting threads that would be in the way."""
    from cwic.coding.blas_threads import one_from_the_start

    one_from_the_start()


def _print_result(source: Path, target: Path, facts: str, options: argparse.Namespace) -> None:
    if not options.quiet:
        names = f"{display_name(source)} -> {display_name(target, 'stdout')}"
        print_line(f"{names} {facts}", sys.stderr if target == STDIO else sys.stdout)


# --- facts of a file ------------------------------------------------------------------------------


def info(options: argparse.Namespace) -> int:
    """What the header of a `.cwic` file says."""
    from cwic.bitstream import check_length
    from cwic.image import Mode

    source: Path = options.input
    data = read(source)
    with naming(source):
        header = _header(data)
        check_length(header, len(data))
    sections: dict[str, int] = {}
    for section in header.sections:
        kind = section.kind.name.lower()
        sections[kind] = sections.get(kind, 0) + section.length
    mode = Mode(header.mode)
    facts: dict[str, Any] = {
        "file": display_name(source),
        "bytes": len(data),
        "bpp": round(8 * len(data) / header.pixels, 6),
        "width": header.width,
        "height": header.height,
        "mode": mode.pil_name,
        "grey": mode.is_grey,
        "model": _bundled_name(header),
        "kept_whole": header.is_whole,
        "identity": header.identity.hex(),
        "q": header.q,
        "tile_px": header.tile_px,
        "tiles": header.num_tiles,
        "version": header.version,
        "sections": sections,
    }
    print(json.dumps(facts, indent=2) if options.json else _fact_sheet(facts))
    return 0


def _fact_sheet(facts: dict[str, Any]) -> str:
    """The same for a person to read."""
    model = f"{facts['model'] or 'not known to this version'}, identity {facts['identity']}"
    grey = ", all grey" if facts["grey"] and facts["mode"].startswith("RGB") else ""
    sections = ", ".join(f"{kind} {length:,} B" for kind, length in facts["sections"].items())
    tiles = "one" if facts["tile_px"] is None else f"{facts['tiles']} of {facts['tile_px']} px"
    return (
        f"file      {facts['file']}\n"
        f"size      {facts['bytes']:,} B, {facts['bpp']:.3f} bpp\n"
        f"picture   {facts['width']}x{facts['height']} {facts['mode']}{grey}\n"
        f"model     {'none, kept whole' if facts['kept_whole'] else model}\n"
        f"q         {facts['q']}, rate offset in 1/64\n"
        f"sections  {sections}\n"
        f"tiles     {tiles}\n"
        f"format    version {facts['version']}"
    )


def _header(data: bytes) -> "Header":
    """The header of a file of any size: to read it takes no memory."""
    from cwic.bitstream import ANY_SIZE, read_header

    return read_header(data, ANY_SIZE)


def _size_and_rate(data: bytes, header: "Header", goal: str = "") -> str:
    whole = ", kept whole" if header.is_whole else ""
    return f"{len(data):,} B, {8 * len(data) / header.pixels:.3f} bpp{goal}{whole}"


def _bundled_name(header: "Header") -> str | None:
    from cwic.model_file import bundled_models

    names = [model.name for model in bundled_models() if model.identity == header.identity]
    return names[0] if names else None


def _made_by(header: "Header") -> str:
    if header.is_whole:
        return "kept whole"
    return f"model {_bundled_name(header) or header.identity.hex()}, q {header.q}"


def models(options: argparse.Namespace) -> int:
    """The models that come with the package."""
    from cwic.model_file import bundled_models

    found = bundled_models()
    if options.json:
        facts = [
            {
                "name": model.name,
                "family": model.family,
                "identity": model.identity.hex(),
                "bytes": model.size_bytes,
                "path": str(model.path),
                "default": model.is_default,
            }
            for model in found
        ]
        print(json.dumps(facts, indent=2))
        return 0
    rows = [("name", "family", "identity", "size", "")]
    for model in found:
        size, default = f"{model.size_bytes / 1e6:.1f} MB", "default" if model.is_default else ""
        rows.append((model.name, model.family, model.identity.hex(), size, default))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    return 0


# --- many files -----------------------------------------------------------------------------------


def batch(options: argparse.Namespace) -> int:
    """A tree of pictures to a tree of `.cwic` files, or back."""
    # Neither times nor bytes shall depend on -j.
    _one_blas_thread()
    from cwic.batch import Decoding, Encoding, Workers, run

    task: Encoding | Decoding = Decoding(options.to, options.model)
    if options.to == CODEC_FORMAT:
        task = Encoding(model=options.model, **request_of(options))
    summary = run(
        options.input,
        options.output,
        task,
        Workers(options.jobs, options.ray),
        force=options.force,
        show_progress=not options.quiet,
    )
    failed = summary.failed
    for outcome in failed[:_PRINTED_FAILURES]:
        print_error(f"{outcome.source}: {outcome.error}")
    if failed:
        print_error(f"{len(failed)} of {len(summary.outcomes)} failed, listed in {summary.table}")
    skipped = f", {summary.num_skipped} existed already (-f makes them again)"
    whole = f", {summary.num_whole} kept whole" if summary.num_whole else ""
    if not options.quiet:
        print_line(
            f"{options.input} -> {options.output} {summary.num_done} done"
            f"{skipped if summary.num_skipped else ''}{whole}, {len(failed)} failed, "
            f"{summary.input_bytes:,} B -> {summary.output_bytes:,} B, {summary.seconds:.1f} s"
        )
    return 1 if failed else 0


def evaluate(options: argparse.Namespace) -> int:
    """Measurements of codecs on pictures."""
    paths: list[Path] = []
    for source in options.inputs:
        if source.is_dir():
            paths += [source / name for name, _ in files_of_folder(source, PICTURE_SUFFIXES)]
        else:
            paths.append(source)
    _one_blas_thread()
    with _extra(
        "evaluate", ("torch", "pytorch_msssim", "scipy", "ssimulacra2", "matplotlib"), NotBuiltError
    ):
        from cwic.evaluation.benchmark import evaluate as evaluate_codecs

        result = evaluate_codecs(
            paths,
            options.out,
            codecs=options.codecs,
            processes=options.jobs,
            command=["cwic", *options.words],
            show_progress=not options.quiet,
        )
    for failure in result.failures:
        print_error(str(failure))
    if not options.quiet:
        print_line(
            f"{options.out / 'report.html'}: {result.measured} points measured, "
            f"{result.reused} from before, {len(result.failures)} failures"
        )
    return 1 if result.failures else 0


def data(options: argparse.Namespace) -> int:
    """A public set of pictures, downloaded."""
    from cwic.evaluation.datasets import DATASETS, fetch

    dataset = DATASETS[options.name]
    folder = Path(options.output or options.name)
    say: Callable[[str], None] = (lambda text: None) if options.quiet else print_note
    say(f"{options.name}: {dataset.about}; {dataset.licence}")
    if not dataset.is_tried:
        say(f"{options.name}: this project has not tried the address")
    files = fetch(dataset, folder, say=say, show_progress=not options.quiet)
    if not options.quiet:
        print_line(f"{folder} {len(files)} pictures")
    return 0


# --- the page, models of one's own, the shell -----------------------------------------------------


def serve(options: argparse.Namespace) -> int:
    """The local page, until it is interrupted."""
    from cwic.serve import serve as serve_page

    def announce(address: str) -> None:
        if not options.quiet:
            print_line(f"{address} (Ctrl-C ends it)")
            sys.stdout.flush()
        if options.host not in _LOOPBACK:
            print_note(f"warning: whoever reaches {options.host} can use this page")

    serve_page(
        options.host,
        options.port,
        max_upload_bytes=options.max_upload,
        model=options.model,
        announce=announce,
    )
    return 0


def train(options: argparse.Namespace) -> int:
    """A training run, from its beginning or from where it was."""
    with _extra("train", ("torch",), TrainingError):
        from cwic.training.trainer import train as train_model

        train_model(
            options.config,
            data=options.data,
            run_dir=options.out,
            max_seconds=options.max_seconds,
            device=options.device,
            threads=options.threads,
            init_from=options.init_from,
            show_progress=not options.quiet,
        )
    return 0


def export(options: argparse.Namespace) -> int:
    """A checkpoint to a model file."""
    target = Path(options.output)
    check_target(target, options.force, options.checkpoint)
    with _extra("train", ("torch",), TrainingError):
        from cwic.training.export import export_checkpoint

        model = export_checkpoint(options.checkpoint, target)
    facts = f"{model.size_bytes:,} B, {model.family}, identity {model.identity.hex()}"
    _print_result(options.checkpoint, target, facts, options)
    return 0


def completion(options: argparse.Namespace) -> int:
    """A script for a shell."""
    with _extra("completion", ("shtab",), NotBuiltError):
        import shtab
    parser = build_parser()
    verbs = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for verb in verbs.choices.values():
        for action in verb._actions:
            if action.type in (Path, input_path, location) or action.dest in ("output", "model"):
                action.complete = shtab.FILE
    print(shtab.complete(parser, options.shell))
    return 0


@contextmanager
def _extra(name: str, modules: Sequence[str], kind: type[CodecError]) -> Iterator[None]:
    """Turns a missing module into an error that names the extra to install."""
    from importlib.util import find_spec

    hint = f"this needs the extra {name!r}, found no {{}}: pip install 'cwic[{name}]'"
    for module in modules:
        if find_spec(module) is None:
            raise kind(hint.format(module))
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "cwic":
            raise
        raise kind(hint.format(error.name)) from error


_ALL = (encode, decode, view, compare, info, models, batch, evaluate, data, serve, train, export)
VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    verb.__name__: verb for verb in (*_ALL, completion)
}
