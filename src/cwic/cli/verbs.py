"""What each verb does: options to calls of the package, and what came of them to messages.

Everything heavy is imported inside the verb that needs it, so that help and `info` are there at
once.
"""

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwic import defaults
from cwic.cli import files
from cwic.cli.arguments import build_parser, input_path, location, mask_path, request_of
from cwic.cli.messages import (
    print_answer,
    print_error,
    print_note,
    print_result,
    progress_bar,
)
from cwic.errors import NotBuiltError

if TYPE_CHECKING:
    from cwic.bitstream import Header

# What each extra brings; looked for before any work is done.
_EXTRAS = {
    "train": ("torch", "onnx", "onnxscript", "safetensors"),
    "evaluate": ("torch", "scipy", "ssimulacra2", "matplotlib"),
    "completion": ("shtab",),
}

# At most so many failures of a batch are printed; its table has all of them.
_PRINTED_FAILURES = 20


# --- one file, or the files of one folder ---------------------------------------------------------


def _encode(source: Path, target: Path, options: argparse.Namespace) -> None:
    _one_blas_thread()
    from cwic.codec import loaded

    start_s = time.perf_counter()
    picture = files.picture_source(source)
    if options.max_pixels is not None:
        from PIL import Image

        # The limit that is asked for stands in the place of Pillow's own.
        Image.MAX_IMAGE_PIXELS = None
    request = request_of(options)
    with progress_bar() as progress:
        data, header, reached = loaded(options.model).encode_request(picture, request, progress)
    files.write(data, target, force=options.force)
    seconds = time.perf_counter() - start_s
    goal = "" if reached is None else f", {request.with_unit(f'{reached:.2f}')}"
    goal += f" (target {request.target})" if request.target else ""
    _print_result(source, target, _size_and_rate(data, header, goal))
    _note_growth(source, picture, len(data))
    _print_details(source, header, seconds, options)


def _decode(source: Path, target: Path, options: argparse.Namespace) -> None:
    _one_blas_thread()
    from cwic.image import encode_image

    start_s = time.perf_counter()
    file_format = options.to or files.picture_format(target, defaults.PICTURE_FORMATS[0])
    data = files.read(source)
    picture = _decoded(
        data, options, region=options.region, reduce=options.reduce, fast=options.fast
    )
    files.write(encode_image(picture, file_format), target, force=options.force)
    seconds = time.perf_counter() - start_s
    _print_result(source, target, f"{picture.width}x{picture.height}")
    _print_details(source, _header(data), seconds, options)


def _decoded(data: bytes, options: argparse.Namespace, **wanted: Any) -> Any:
    """The picture of a file, by the model that the options name or else a bundled one."""
    from cwic.bitstream import Limits
    from cwic.codec import loaded_for

    max_pixels = getattr(options, "max_pixels", None)
    limits = None if max_pixels is None else Limits(max_pixels=max_pixels)
    return loaded_for(data, options.model, limits=limits).decode(data, limits=limits, **wanted)


def _view(source: Path, target: Path, options: argparse.Namespace) -> None:
    from dataclasses import replace

    from cwic.codec import loaded, loaded_for
    from cwic.image import Metadata, encode_image, read_picture
    from cwic.request import Request
    from cwic.view import overlay

    metadata = Metadata()
    file_format = files.picture_format(target, "png")
    picture = files.picture_source(source)
    data = files.coded_content(picture)
    request = request_of(options)
    if data is None:
        read = read_picture(picture, truncated=options.truncated)
        request = replace(request, keep_metadata=False)
        data = loaded(options.model).encode_request(read, request).data
        metadata = replace(read.metadata, exif=None, xmp=None)
    elif request != Request():
        name = files.display_name(source)
        print_note(f"note: {name}: coded already, so the options of encode have no effect")
    inspected = loaded_for(data, options.model).inspect(data)
    inspected.picture.info.update(metadata.as_pil_info())
    sheet = overlay(*inspected)
    files.write(encode_image(sheet, file_format), target, force=options.force)
    _print_result(source, target, f"of {_size_and_rate(data, _header(data))}")


def _compare(source: Path, target: Path, options: argparse.Namespace) -> None:
    from dataclasses import replace

    from cwic.codec import loaded
    from cwic.evaluation.compare import compared, compared_page
    from cwic.image import on_white, read_picture, to_pil

    read = read_picture(files.picture_source(source), truncated=options.truncated)
    picture = to_pil(read)
    if read.alpha is not None:
        picture = on_white(picture)
        print_note(f"note: {files.display_name(source)}: its transparency is laid on white")
    picture = picture.convert("RGB")
    # The others hold the picture alone.
    request = replace(request_of(options), keep_metadata=False)
    data, header, _ = loaded(options.model).encode_request(picture, request)
    # The page is sent elsewhere: its title has no folders, and no bytes but text.
    name = files.display_name(source) if source == files.STDIO else source.name
    title = os.fsencode(name).decode("utf-8", "replace")
    comparison = compared(title, picture, data, _decoded(data, options), with_ssimulacra2=True)
    files.write(compared_page(comparison).encode(), target, force=options.force)
    _print_result(source, target, f"at {_size_and_rate(data, header)}")


def _one_blas_thread() -> None:
    """Keeps numpy, which is loaded after this, from starting threads that would be in the way."""
    from cwic.coding.blas_threads import one_from_the_start

    one_from_the_start()


def _print_result(source: Path, target: Path, facts: str) -> None:
    names = f"{files.display_name(source)} -> {files.display_name(target, 'stdout')}"
    print_result(f"{names} {facts}", sys.stderr if target == files.STDIO else sys.stdout)


def _note_growth(source: Path, picture: Path | io.BytesIO, num_bytes: int) -> None:
    """Says so if the result is larger than the file that it was made of."""
    if isinstance(picture, io.BytesIO):
        source_bytes = picture.getbuffer().nbytes
    elif picture.is_file():
        source_bytes = picture.stat().st_size
    else:
        return
    if num_bytes > source_bytes:
        print_note(
            f"note: {files.display_name(source)}: the result has {num_bytes:,} B, more than the "
            f"{source_bytes:,} B of this file"
        )


def _print_details(
    source: Path, header: "Header", seconds: float, options: argparse.Namespace
) -> None:
    if options.verbose:
        model = f"model {_bundled_name(header) or header.identity.hex()}, q {header.q}"
        made_by = header.kept or ", ".join(filter(None, (model, header.exactness)))
        print_note(f"{files.display_name(source)}: {made_by}, {seconds:.2f} s")


# --- facts of a file ------------------------------------------------------------------------------


def _info(options: argparse.Namespace) -> int:
    from cwic.bitstream import check_length
    from cwic.colour_mode import Mode

    source: Path = options.input
    data = files.read(source)
    with files.naming(source):
        header = _header(data)
        check_length(header, len(data))
    sections: dict[str, int] = {}
    for section in header.sections:
        kind = section.kind.name.lower()
        sections[kind] = sections.get(kind, 0) + section.length
    mode = Mode(header.mode)
    facts: dict[str, Any] = {
        "file": files.display_name(source),
        "bytes": len(data),
        "bpp": round(8 * len(data) / header.pixels, 6),
        "width": header.width,
        "height": header.height,
        "mode": mode.pil_name,
        "grey": mode.is_grey,
        "model": _bundled_name(header),
        "kept_whole": header.is_whole,
        "colours": header.num_colours,
        "exact_graphics": header.has_exact_layer,
        "identity": header.identity.hex(),
        "q": header.q,
        "tile_px": header.tile_px,
        "tiles": header.num_tiles,
        "version": header.version,
        "sections": sections,
    }
    print_answer(json.dumps(facts, indent=2) if options.json else _fact_sheet(facts, header.kept))
    return 0


def _fact_sheet(facts: dict[str, Any], kept: str) -> str:
    """The same for a person to read; `kept` is what is kept without a model, or nothing."""
    model = f"{facts['model'] or 'not known to this version'}, identity {facts['identity']}"
    coded_at = f"q         {facts['q']}, the quality as the model counts it\n"
    grey = ", all grey" if facts["grey"] and facts["mode"].startswith("RGB") else ""
    sections = ", ".join(f"{kind} {length:,} B" for kind, length in facts["sections"].items())
    tiles = "one" if facts["tile_px"] is None else f"{facts['tiles']} of {facts['tile_px']} px"
    return (
        f"file      {facts['file']}\n"
        f"size      {facts['bytes']:,} B, {facts['bpp']:.3f} bpp\n"
        f"picture   {facts['width']}x{facts['height']} {facts['mode']}{grey}\n"
        f"model     {f'none, {kept}' if kept else model}\n"
        f"{'' if kept else coded_at}"
        f"sections  {sections}\n"
        f"tiles     {tiles}\n"
        f"format    version {facts['version']}"
    )


def _header(data: bytes) -> "Header":
    """The header of a file of any size: to read it takes no memory."""
    from cwic.bitstream import ANY_SIZE, read_header

    return read_header(data, ANY_SIZE)


def _size_and_rate(data: bytes, header: "Header", goal: str = "") -> str:
    end = f", {header.exactness}" if header.exactness else ""
    return f"{len(data):,} B, {8 * len(data) / header.pixels:.3f} bpp{goal}{end}"


def _bundled_name(header: "Header") -> str | None:
    from cwic.model_file import bundled_models

    names = (model.name for model in bundled_models() if model.identity == header.identity)
    return next(names, None)


def _models(options: argparse.Namespace) -> int:
    from cwic.model_file import bundled_models, find

    if options.web:
        from cwic.web_model import usable_models, write_web_models

        paths = [find(name) for name in options.model] if options.model else usable_models()
        for path in write_web_models(paths, options.web):
            print_result(f"{path}, {path.stat().st_size / 1e6:.1f} MB")
        return 0
    facts = [
        {
            "name": model.name,
            "family": model.family,
            "identity": model.identity.hex(),
            "bytes": model.size_bytes,
            "path": str(model.path),
            "default": model.is_default,
        }
        for model in bundled_models()
    ]
    if options.json:
        print_answer(json.dumps(facts, indent=2))
        return 0
    line = "{:<13}{:<10}{:<18}{:<9}{}"
    print_answer(line.format("name", "family", "identity", "size", "").rstrip())
    for model in bundled_models():
        size, default = f"{model.size_bytes / 1e6:.1f} MB", "default" if model.is_default else ""
        cells = (model.name, model.family, model.identity.hex(), size, default)
        print_answer(line.format(*cells).rstrip())
    return 0


# --- many files -----------------------------------------------------------------------------------


def _batch(options: argparse.Namespace) -> int:
    # Neither times nor bytes shall depend on -j.
    _one_blas_thread()
    from cwic.batch import Decoding, Encoding, Workers, counted, run

    task: Encoding | Decoding = Decoding(options.to, options.model, options.fast)
    if options.to == defaults.CODEC_FORMAT:
        task = Encoding(request_of(options), options.model)
    summary = run(
        options.input,
        options.output,
        task,
        Workers(options.jobs, options.ray),
        force=options.force,
        show_progress=not options.quiet,
    )
    failed, left_alone, table = summary.failed, summary.left_alone, summary.table
    for outcome in failed[:_PRINTED_FAILURES]:
        print_error(f"{outcome.source}: {outcome.error}")
    if failed:
        print_error(f"{len(failed)} of {len(summary.outcomes)} failed, listed in {table}")
    if left_alone:
        print_note(f"{len(left_alone)} left alone ({counted(left_alone)}), listed in {table}")
    if options.to == defaults.CODEC_FORMAT and summary.num_larger:
        print_note(
            f"note: {summary.num_larger} of {len(summary.outcomes)} results larger than their "
            f"sources, see output_bytes and input_bytes in {table}"
        )
    skipped = f", {summary.num_skipped} existed already (-f makes them again)"
    whole = f", {summary.num_whole} kept whole" if summary.num_whole else ""
    reduced = f", {summary.num_reduced} in fewer colours" if summary.num_reduced else ""
    num_exact = summary.num_with_exact_graphics
    exact = f", {num_exact} with text and graphics exact" if num_exact else ""
    print_result(
        f"{options.input} -> {options.output} {summary.num_done} done"
        f"{skipped if summary.num_skipped else ''}{whole}{reduced}{exact}, {len(failed)} failed, "
        f"{summary.input_bytes:,} B -> {summary.output_bytes:,} B, {summary.seconds:.1f} s"
    )
    return 1 if failed else 0


def _evaluate(options: argparse.Namespace) -> int:
    paths: list[Path] = []
    for source in options.inputs:
        if source.is_dir():
            paths += [
                source / name for name, _ in files.of_folder(source, defaults.PICTURE_SUFFIXES)
            ]
        else:
            paths.append(source)
    _one_blas_thread()
    _need_extra("evaluate")
    files.make_folder(options.out)
    from cwic.evaluation.benchmark import evaluate

    with files.readable_again(paths) as paths:
        result = evaluate(
            paths,
            options.out,
            codecs=options.codecs,
            processes=options.jobs,
            command=["cwic", *options.words],
            show_progress=not options.quiet,
        )
    for failure in result.failures:
        print_error(str(failure))
    print_result(
        f"{options.out / 'report.html'}: {result.measured} points measured, "
        f"{result.reused} from before, {len(result.failures)} failed"
    )
    return 1 if result.failures else 0


def _data(options: argparse.Namespace) -> int:
    from cwic.evaluation.datasets import DATASETS, fetch

    dataset = DATASETS[options.name]
    folder = Path(options.output or options.name)
    files.make_folder(folder)
    print_note(f"{options.name}: {dataset.about}; {dataset.licence}")
    if not dataset.is_tried:
        print_note(f"{options.name}: nobody has tried this address yet")
    pictures = fetch(dataset, folder, say=print_note, show_progress=not options.quiet)
    print_result(f"{folder} {len(pictures)} pictures")
    return 0


# --- the page, models of one's own, the shell -----------------------------------------------------


def _serve(options: argparse.Namespace) -> int:
    from cwic.serve import serve

    def announce(address: str) -> None:
        print_result(f"{address} (Ctrl-C ends it)")
        sys.stdout.flush()
        if options.host not in defaults.LOOPBACK_HOSTS:
            print_note(f"warning: whoever reaches {options.host} can use this page")

    serve(
        options.host,
        options.port,
        max_upload_bytes=options.max_upload,
        model=options.model,
        announce=announce,
    )
    return 0


def _train(options: argparse.Namespace) -> int:
    _need_extra("train")
    from cwic.training.trainer import train

    train(
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


def _export(options: argparse.Namespace) -> int:
    from cwic.model_file import packed

    checkpoint: Path = options.checkpoint
    target = files.named_target(options.output)
    files.check_target(target, options.force, checkpoint)
    _need_extra("train")
    from cwic.training.export import export_checkpoint

    # A stream has no name that a model could have.
    stem = (checkpoint if files.is_stream(target) else target).stem
    model = export_checkpoint(checkpoint, stem, identity_of=options.identity_of)
    data = packed(model)
    files.write(data, target, force=options.force)
    facts = f"{len(data):,} B, {model.family}, identity {model.identity.hex()}"
    _print_result(checkpoint, target, facts)
    return 0


def _completion(options: argparse.Namespace) -> int:
    _need_extra("completion")
    import shtab

    parser = build_parser()
    verbs = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for verb in verbs.choices.values():
        for action in verb._actions:
            is_path = action.type in (Path, input_path, location, mask_path)
            if is_path or action.dest in ("output", "model"):
                action.complete = shtab.FILE
    print_answer(shtab.complete(parser, options.shell))
    return 0


def _need_extra(name: str) -> None:
    """Raises NotBuiltError if a module of an extra is not installed; the message says how to."""
    for module in _EXTRAS[name]:
        if util.find_spec(module) is None:
            raise NotBuiltError(
                f"this needs the extra {name!r}, found no {module}: pip install 'cwic[{name}]'"
            )


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "encode": lambda options: files.for_each(
        options, _encode, defaults.PICTURE_SUFFIXES, defaults.CODEC_SUFFIX
    ),
    "decode": lambda options: files.for_each(
        options,
        _decode,
        frozenset({defaults.CODEC_SUFFIX}),
        f".{options.to or defaults.PICTURE_FORMATS[0]}",
    ),
    "view": lambda options: files.for_each(
        options, _view, defaults.PICTURE_SUFFIXES | {defaults.CODEC_SUFFIX}, ".map.png"
    ),
    "compare": lambda options: files.for_each(
        options, _compare, defaults.PICTURE_SUFFIXES, ".html"
    ),
    "info": _info,
    "models": _models,
    "batch": _batch,
    "evaluate": _evaluate,
    "data": _data,
    "serve": _serve,
    "train": _train,
    "export": _export,
    "completion": _completion,
}
