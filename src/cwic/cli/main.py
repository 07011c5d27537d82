"""The command `cwic`: options, files in and out, messages, exit codes.

Owns what a person types and reads. Everything that is said about pictures and bytes is left to the
public functions of the package; they are imported only when a verb needs them, so that help and
`info` are there at once.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. Results go to the standard output
unless it carries the data, everything else to the standard error.
"""

import argparse
import difflib
import importlib.util
import io
import json
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from cwic.coding.blas_threads import one_from_the_start
from cwic.errors import (
    BitstreamError,
    CodecError,
    CodecWarning,
    ImageError,
    ModelError,
    NotBuiltError,
    TargetError,
    TrainingError,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from cwic.bitstream import Header

__all__ = ["main"]

_PICTURE_SUFFIXES = frozenset(
    ".avif .bmp .gif .j2k .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .qoi .tga .tif .tiff"
    " .webp".split()
)

_UNIT_BYTES = {
    "": 1,
    "b": 1,
    "k": 10**3,
    "kb": 10**3,
    "kib": 2**10,
    "m": 10**6,
    "mb": 10**6,
    "mib": 2**20,
    "g": 10**9,
    "gb": 10**9,
    "gib": 2**30,
}

_LARGEST_SIZE_BYTES = 10**15

_STDIO = Path("-")

_LOOPBACK = ("127.0.0.1", "localhost", "::1")

Region = tuple[int, int, int, int]  # x, y, width, height

# Of `serve`; tests compare.
_PORT = 7860
_MAX_UPLOAD_BYTES = 100 * 10**6

# What `--to` takes, of `batch` beside "cwic".
_PICTURE_FORMATS = ("png", "jpg", "webp", "avif", "tiff", "ppm", "bmp")

# What `--lossless` takes; those of `codec`, a test compares.
_LOSSLESS = ("auto", "never", "always")

_SHELLS = ("bash", "zsh", "fish")

# Those of `tiling`; a test compares.
_REDUCTIONS = (1, 2, 4, 8)

# Those of `evaluation.datasets`; a test compares.
_DATASETS = ("kodak", "div2k-valid", "div2k-train", "clic")

# So many failures of a batch are shown; its table has all.
_SHOWN_FAILURES = 20

# At the end of the help of the command and of each verb; a test runs them through the parser.
_EXAMPLES = {
    "": """
  cwic encode photo.png                        photo.cwic
  cwic encode photo.png --target-size 40kB
  cwic decode photo.cwic -o photo.jpg
  cwic batch photos/ files/                    a folder and all folders in it
  cwic compare photo.png                       a page: beside JPEG, WebP and AVIF
  cwic encode --help                           options and more examples""",
    "encode": """
  cwic encode photo.png                        photo.cwic, quality 50
  cwic encode photo.png -o small.cwic --bpp 0.3
  cwic encode photo.png --target-size 40kB -f  no matter what was there
  cwic encode photo.png --roi mask.png         white is better; the size stays
  cwic encode photos/ -o files/                a folder, not those in it""",
    "decode": """
  cwic decode photo.cwic                       photo.png
  cwic decode photo.cwic -o photo.webp         the extension says the format
  cwic decode photo.cwic --region 0,0,640,480  no more is decoded than it takes
  cwic decode photo.cwic --reduce 8 -o small.png
  cwic decode files/ -o pictures/ --to jpg     a folder, not those in it
  cwic decode - -o - --to webp                 from a pipe into a pipe""",
    "compare": """
  cwic compare photo.png --bpp 0.25            photo.html, open it in a browser""",
    "view": """
  cwic view photo.png                          photo.map.png, at quality 50
  cwic view photo.cwic -o map.png""",
    "batch": """
  cwic batch photos/ files/ -q 60              and the folders in it; again to go on
  cwic batch files/ pictures/ --to webp        back to pictures
  cwic batch photos/ files/ -j 2               two processes, for little memory
  cwic batch s3://in/photos s3://out/files --ray 10.0.0.1:6379""",
    "serve": """
  cwic serve                                   open http://127.0.0.1:7860 in a browser
  cwic serve --port 8000 --max-upload 20MB""",
    "evaluate": """
  cwic evaluate kodak/ --out results/ -j 2
  cwic evaluate photo.png --codecs cwic:cvpr2018 jpeg avif --out results/""",
    "info": """
  cwic info photo.cwic
  cwic info photo.cwic --json""",
    "models": """
  cwic models""",
    "train": """
  cwic train configs/cvpr2018.toml --data photos/ --out run
  cwic train configs/cvpr2018.toml --data photos/ --out run --max-seconds 3600""",
    "export": """
  cwic export run/best.safetensors -o mine.cwicmodel""",
    "data": """
  cwic data fetch kodak                        a folder kodak/; ask again to go on""",
    "completion": """
  cwic completion bash > ~/.local/share/bash-completion/completions/cwic
  cwic completion zsh > ~/.zfunc/_cwic         a folder of your $fpath
  cwic completion fish > ~/.config/fish/completions/cwic.fish""",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the words after `cwic`; those of the process if not given.

    Returns:
        The exit code.

    Raises:
        SystemExit: from the parser: 0 after `--help` and `--version`, 2 for wrong usage.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    _fill_closed_streams()
    try:
        try:
            parser = _parser()
            _check_verb(parser, words)
            options, rest = parser.parse_known_args(words)
            if rest:
                _refuse_rest(options, rest)
        except SystemExit:
            sys.stdout.flush()  # see below
            raise
        options.words = words
        with _warnings_as_messages(quiet=options.quiet):
            code: int = options.run(options)
        # A reader that went away is noticed here, and not while the interpreter shuts down.
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        _say_error("interrupted")
        return 130
    except BrokenPipeError:
        _drop_what_is_not_taken()
        return 1
    except (CodecError, OSError, MemoryError) as error:
        _say_error(_reason(error))
        _drop_what_is_not_taken()
        return 1


def _fill_closed_streams() -> None:
    """Puts something in place of each standard stream that the caller has closed.

    The next file to be opened would get its number, and with it whatever is printed there. Reading
    and writing fail there as they would on a closed stream; messages are lost.
    """
    for name, access, mode in (
        ("stdin", os.O_WRONLY, "r"),
        ("stdout", os.O_RDONLY, "w"),
        ("stderr", os.O_WRONLY, "w"),
    ):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, access), mode))


def _drop_what_is_not_taken() -> None:
    """The interpreter flushes standard output once more at its end, and must not fail there."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- the parser -----------------------------------------------------------------------------------


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Leaves examples as they are, and the longest verb on the line of its help."""

    def format_help(self) -> str:
        # By which verbs are indented; argparse forgets it when it makes room for them.
        self._action_max_length += self._indent_increment
        return super().format_help()


def _parser() -> argparse.ArgumentParser:
    from cwic import __version__

    parser = argparse.ArgumentParser(
        prog="cwic",
        description="Content-weighted image compression: pictures to small .cwic files and back.",
        epilog=f"examples:{_EXAMPLES['']}",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"cwic {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    verb = _add_verb(verbs, "encode", _encode, "make a .cwic file of a picture")
    verb.add_argument("input", type=_input, metavar="PICTURE", help="a file, a folder, or -")
    _add_output(verb, "the .cwic file, or the folder for those of a folder; - is stdout")
    _add_rate(verb)
    verb.add_argument("--roi", type=Path, metavar="MASK", help="a picture, white where it matters")
    verb.add_argument(
        "--roi-strength", type=_strength, metavar="0..4", default=1.0, help="of the mask"
    )
    verb.add_argument("--saliency", action="store_true", help="more bits where the eye goes")
    _add_lossless(verb)
    verb.add_argument("--strip", action="store_true", help="leave out ICC, EXIF and XMP")
    verb.add_argument("--model", metavar="NAME|PATH", help="one of cwic models, or a model file")
    _add_max_pixels(verb)

    verb = _add_verb(verbs, "decode", _decode, "make a picture of a .cwic file")
    verb.add_argument("input", type=_input, metavar="FILE", help="a .cwic file, a folder, or -")
    _add_output(
        verb, "the picture, its extension says the format (default .png), or a folder; - is stdout"
    )
    verb.add_argument(
        "--model", metavar="NAME|PATH", help="only for files of a model that did not come with cwic"
    )
    verb.add_argument(
        "--to",
        choices=_PICTURE_FORMATS,
        help="format of the picture where no extension says it: of a folder's, of stdout's",
    )
    verb.add_argument(
        "--region", type=_region, metavar="X,Y,W,H", help="a part of the picture, in pixels"
    )
    verb.add_argument(
        "--reduce",
        type=int,
        choices=_REDUCTIONS,
        default=1,
        help="so many pixels a side become one; 8 is a quick preview",
    )
    _add_max_pixels(verb)

    verb = _add_verb(verbs, "view", _view, "show where the bits of a picture go")
    verb.add_argument("input", type=_input, metavar="PICTURE", help="a picture or a .cwic file")
    _add_output(verb, "a picture, or a folder (default NAME.map.png)")
    rate = verb.add_mutually_exclusive_group()
    rate.add_argument(
        "-q", "--quality", type=_quality, metavar="0..100", help="that a picture is encoded with"
    )
    rate.add_argument("--bpp", type=_positive, metavar="X", help="bits per pixel, of a picture")
    _add_lossless(verb)
    verb.add_argument("--roi", type=Path, metavar="MASK", help="a picture, white where it matters")
    verb.add_argument("--saliency", action="store_true", help="more bits where the eye goes")
    verb.add_argument("--model", metavar="NAME|PATH", help="one of cwic models, or a model file")

    verb = _add_verb(verbs, "compare", _compare, "a page: this picture by other codecs, same size")
    verb.add_argument("input", type=_input, metavar="PICTURE", help="a file, a folder, or -")
    _add_output(verb, "the page, or a folder (default NAME.html)")
    _add_rate(verb)
    _add_lossless(verb)
    verb.add_argument("--roi", type=Path, metavar="MASK", help="a picture, white where it matters")
    verb.add_argument("--saliency", action="store_true", help="more bits where the eye goes")
    verb.add_argument("--model", metavar="NAME|PATH", help="one of cwic models, or a model file")

    verb = _add_verb(verbs, "batch", _batch, "encode or decode a folder and all folders in it")
    verb.add_argument("input", type=_location, metavar="IN", help="a folder, or s3://... and such")
    verb.add_argument("output", type=_location, metavar="OUT", help="the folder for the results")
    verb.add_argument(
        "--to",
        choices=("cwic", *_PICTURE_FORMATS),
        default="cwic",
        help="what the results are: cwic (the default) encodes, a picture format decodes",
    )
    _add_rate(verb)
    _add_lossless(verb)
    verb.add_argument("--strip", action="store_true", help="leave out ICC, EXIF and XMP")
    verb.add_argument("--model", metavar="NAME|PATH", help="one of cwic models, or a model file")
    verb.add_argument(
        "-j", "--jobs", type=_count, metavar="N", help="workers (default: one a processor)"
    )
    verb.add_argument(
        "--ray", metavar="local|ADDRESS", help="work on a Ray cluster; needs the extra 'ray'"
    )
    verb.add_argument("-f", "--force", action="store_true", help="make what is there again")

    verb = _add_verb(
        verbs, "serve", _serve, "a local web page that encodes and compares; needs the extra 'demo'"
    )
    verb.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="to listen on (default: this machine)",
    )
    verb.add_argument(
        "--port", type=_port, default=_PORT, metavar="N", help=f"of the page (default: {_PORT})"
    )
    verb.add_argument(
        "--max-upload",
        type=_size_bytes,
        default=_MAX_UPLOAD_BYTES,
        metavar="SIZE",
        help="of a file (default: 100MB)",
    )
    verb.add_argument("--model", metavar="NAME|PATH", help="that is chosen at first")

    verb = _add_verb(verbs, "info", _info, "say what is in a .cwic file, without decoding it")
    verb.add_argument("input", type=_input, metavar="FILE", help="a .cwic file, or -")
    verb.add_argument("--json", action="store_true", help="for programs")

    verb = _add_verb(verbs, "models", _models, "list the models that come with the program")
    verb.add_argument("--json", action="store_true", help="for programs")

    verb = _add_verb(verbs, "train", _train, "train a model; needs the extra 'train'")
    verb.add_argument("config", type=Path, metavar="CONFIG.toml")
    _add_data(verb, "with pictures")
    verb.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="of the run; resumes what is there",
    )
    verb.add_argument(
        "--init-from",
        type=Path,
        metavar="FILE",
        help="checkpoint or model file whose weights a fresh run starts from",
    )
    verb.add_argument("--max-seconds", type=_positive, metavar="S", help="stop in good order")
    verb.add_argument("--threads", type=_count, metavar="N", help="of the CPU")
    verb.add_argument("--device", metavar="NAME", help="cpu, cuda, ...")

    verb = _add_verb(verbs, "export", _export, "make a model of a checkpoint; needs 'train'")
    verb.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    _add_output(verb, "the model", required=True)

    verb = _add_verb(verbs, "data", _data, "fetch a public set of pictures")
    verb.add_argument("action", choices=("fetch",))
    verb.add_argument("name", choices=_DATASETS, help="of the set")
    verb.add_argument(
        "-o", "--output", metavar="FOLDER", help="for the files (default: one of the set's name)"
    )

    verb = _add_verb(verbs, "completion", _completion, "print a script that completes cwic words")
    verb.add_argument("shell", choices=_SHELLS, help="that is to read the script")

    verb = _add_verb(
        verbs, "evaluate", _evaluate, "measure models and other codecs; needs the extra 'evaluate'"
    )
    verb.add_argument(
        "inputs", type=_input, nargs="+", metavar="IMAGES", help="picture files, or folders of them"
    )
    verb.add_argument(
        "--codecs",
        nargs="+",
        metavar="NAME",
        help="jpeg, jpeg2000, webp, avif, jpegxl, heic, cwic:MODEL (default: all that are here)",
    )
    verb.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="of the results; what was measured before is not measured again",
    )
    verb.add_argument("-j", "--jobs", type=_count, default=1, metavar="N", help="processes")

    for verb in verbs.choices.values():
        verb.add_argument("--quiet", action="store_true", help="say nothing but errors")
        verb.add_argument("-v", "--verbose", action="store_true", help="say more")
    return parser


def _add_verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"examples:{_EXAMPLES[name]}",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    verb.set_defaults(run=run, parser=verb)
    return verb


def _add_output(verb: argparse.ArgumentParser, what: str, *, required: bool = False) -> None:
    verb.add_argument("-o", "--output", required=required, metavar="OUT", help=what)
    verb.add_argument("-f", "--force", action="store_true", help="overwrite")


def _add_rate(verb: argparse.ArgumentParser) -> None:
    rate = verb.add_argument_group("how large or how good (one of these)")
    rate = rate.add_mutually_exclusive_group()
    rate.add_argument(
        "-q", "--quality", type=_quality, metavar="0..100", help="quality (default: 50)"
    )
    rate.add_argument("--bpp", type=_positive, metavar="X", help="bits per pixel of the file")
    rate.add_argument(
        "--target-size", type=_size_bytes, metavar="SIZE", help="40kB, 1.5MB, 40KiB or bytes"
    )
    rate.add_argument("--psnr", type=_positive, metavar="DB", help="PSNR in dB")
    verb.add_argument(
        "--strict",
        action="store_true",
        help="what was asked for, never larger or worse, or no file",
    )


def _add_lossless(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--lossless",
        choices=_LOSSLESS,
        default=_LOSSLESS[0],
        help="keep the picture whole: auto (the default) where that is cheap",
    )


def _add_max_pixels(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--max-pixels",
        type=_count,
        metavar="N",
        help="a picture of more is refused (default: 179 million)",
    )


def _add_data(verb: argparse.ArgumentParser, what: str) -> None:
    verb.add_argument("--data", type=Path, nargs="+", required=True, metavar="FOLDER", help=what)


def _input(text: str) -> Path:
    """A path; an empty one is a shell variable that was not set, and not this folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a file, a folder or -, found nothing")
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"expected a file, a folder or -, found {text}: cwic batch takes URLs of folders"
        )
    return Path(text)


def _location(text: str) -> str:
    """A folder by path or URL; as text, because a Path would fold the slashes of a URL."""
    if not text:
        raise argparse.ArgumentTypeError("expected a folder or a URL, found nothing")
    return text


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, found {text!r}")
    return value


def _quality(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"expected 0 to 100, found {text}")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text}")
    return value


def _strength(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 4:
        raise argparse.ArgumentTypeError(f"expected 0 to 4, found {text}")
    return value


def _count(text: str) -> int:
    value = _number(text)
    if value < 1 or value != int(value):
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text}")
    return int(value)


def _port(text: str) -> int:
    value = _count(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"expected 1 to 65535, found {text}")
    return value


def _region(text: str) -> Region:
    try:
        x, y, width, height = (int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected X,Y,W,H, four integers, found {text!r}"
        ) from None
    return x, y, width, height


def _size_bytes(text: str) -> int:
    """'40kB', '40 kB', '1.5MB', '40KiB' or '40000' -> bytes; 1 kB is 1000 B."""
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-zA-Z]*)\s*", text, re.ASCII)
    unit_bytes = _UNIT_BYTES.get(match[2].lower()) if match else None
    if match is None or unit_bytes is None:
        raise argparse.ArgumentTypeError(f"expected a size like 40kB or 40000, found {text!r}")
    size_bytes = float(match[1]) * unit_bytes
    if not 0.5 < size_bytes < _LARGEST_SIZE_BYTES:
        raise argparse.ArgumentTypeError(
            f"expected 1 byte to {_LARGEST_SIZE_BYTES:,}, found {text[:40]!r}"
        )
    return round(size_bytes)


def _check_verb(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Says what was perhaps meant by a first word that is no verb, and all there is without one."""
    verbs = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
    if not words:
        parser.print_help(sys.stderr)
        parser.exit(2)
    if words[0].startswith("-") or words[0] in verbs:
        return
    word = words[0]
    close = difflib.get_close_matches(word, verbs, 1)
    if Path(word).suffix.lower() in _PICTURE_SUFFIXES:
        hint = f"cwic encode {word}?"
    elif Path(word).suffix.lower() == ".cwic":
        hint = f"cwic decode {word}?"
    else:
        hint = f"cwic {close[0]}?" if close else "cwic --help lists them"
    parser.error(f"expected a verb, found {word!r}: {hint}")


def _refuse_rest(options: argparse.Namespace, rest: Sequence[str]) -> NoReturn:
    """Says what was perhaps meant by words that a verb has no place for."""
    parser: argparse.ArgumentParser = options.parser
    word = rest[0]
    known = [name for action in parser._actions for name in action.option_strings]
    hint = f"{parser.prog} --help lists the options"
    if word.startswith("-"):
        name = word.partition("=")[0]
        # `--size` is nearer to `--strip` in letters than to the option that ends with it.
        close = [option for option in known if option.endswith(name.lstrip("-"))]
        close += difflib.get_close_matches(name, known, 1)
        if close:
            hint = f"{close[0]}?"
    elif options.run in (_encode, _decode, _view, _compare):
        hint = f"{parser.prog} takes one file, or a folder with -o FOLDER"
    parser.error(f"found {word!r}, which is too much: {hint}")


# --- the verbs ------------------------------------------------------------------------------------


class _StandardInput(io.BytesIO):
    """All of it, under the name that messages have for it."""

    name = "stdin"


def _picture_of(source: Path) -> Any:
    """What the functions of the package read a picture from."""
    return _StandardInput(sys.stdin.buffer.read()) if source == _STDIO else source


def _encode(options: argparse.Namespace) -> int:
    if options.output is not None and Path(options.output).suffix.lower() in _PICTURE_SUFFIXES:
        _usage_error(options, f"encode writes .cwic files, found -o {options.output}")
    if options.input.suffix.lower() == ".cwic":
        _usage_error(options, f"expected a picture: cwic decode {options.input}?")
    one_from_the_start()
    return _for_each_file(options, _encode_file, _PICTURE_SUFFIXES, ".cwic")


def _encode_file(source: Path, target: Path, options: argparse.Namespace) -> None:
    import cwic

    start_s = time.perf_counter()
    picture = _picture_of(source)
    if options.max_pixels is not None:
        from PIL import Image

        Image.MAX_IMAGE_PIXELS = options.max_pixels
    data = cwic.encode(
        picture,
        quality=options.quality,
        bpp=options.bpp,
        target_bytes=options.target_size,
        psnr_db=options.psnr,
        roi=options.roi,
        roi_strength=options.roi_strength,
        saliency=True if options.saliency else None,
        model=options.model,
        strict=options.strict,
        lossless=options.lossless,
        keep_metadata=not options.strip,
        max_pixels=options.max_pixels,
    )
    _write(data, target)
    seconds = time.perf_counter() - start_s
    header = _header(data)
    asked = ""
    if options.bpp is not None:
        asked = f" (asked {options.bpp:g})"
    elif options.target_size is not None:
        asked = f" (asked {options.target_size:,} B)"
    elif options.psnr is not None and header.is_whole:
        asked = f" (asked {options.psnr:g} dB)"
    elif options.psnr is not None:
        reached_db = _reached_psnr_db(picture, data, options)
        asked = f", {reached_db:.2f} dB (asked {options.psnr:g})"
    _say_result(
        f"{_shown(source)} -> {_shown(target, 'stdout')} {len(data):,} B, "
        f"{_rate_bpp(data, header):.3f} bpp{asked}{_kept_whole(header)}",
        target,
        options,
    )
    if options.verbose:
        _say(f"{_shown(source)}: {_made_by(header)}, {seconds:.2f} s")


def _reached_psnr_db(picture: Any, data: bytes, options: argparse.Namespace) -> float:
    """PSNR of a file against the picture it was made of, over R, G and B."""
    from cwic.defaults import MAX_PIXELS
    from cwic.evaluation.compare import psnr_db
    from cwic.image import read_picture

    if isinstance(picture, io.BytesIO):
        picture.seek(0)
    decoded = _decoded(data, options.model, options.max_pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CodecWarning)  # said before
        pictures = (
            read_picture(source, max_pixels=options.max_pixels or MAX_PIXELS)
            for source in (picture, decoded)
        )
        return psnr_db(*(picture.pixels for picture in pictures))


def _header(data: bytes) -> "Header":
    """Of a picture of any size: to say what it is takes no memory."""
    from cwic.bitstream import ANY_SIZE, read_header

    return read_header(data, ANY_SIZE)


def _decode(options: argparse.Namespace) -> int:
    if options.input.suffix.lower() in _PICTURE_SUFFIXES:
        _usage_error(options, f"expected a .cwic file: cwic encode {options.input}?")
    suffix = Path(options.output or "").suffix.lower()
    if options.to is not None and suffix in _PICTURE_SUFFIXES:
        _usage_error(options, f"{options.output} says the format itself, found --to {options.to}")
    one_from_the_start()
    return _for_each_file(options, _decode_file, frozenset({".cwic"}), f".{options.to or 'png'}")


def _decode_file(source: Path, target: Path, options: argparse.Namespace) -> None:
    from cwic.image import encode_image

    start_s = time.perf_counter()
    data = _read(source)
    picture = _decoded(data, options.model, options.max_pixels, options.region, options.reduce)
    file_format = options.to or ("png" if target == _STDIO else target.suffix)
    _write(encode_image(picture, file_format), target)
    seconds = time.perf_counter() - start_s
    _say_result(
        f"{_shown(source)} -> {_shown(target, 'stdout')} {picture.width}x{picture.height}",
        target,
        options,
    )
    if options.verbose:
        header = _header(data)
        _say(f"{_shown(source)}: {_made_by(header)}, {seconds:.2f} s")


def _decoded(
    data: bytes,
    model: str | None,
    max_pixels: int | None = None,
    region: Region | None = None,
    reduce: int = 1,
) -> "Image":
    """The picture of a file, made by a bundled model or by the one that was named."""
    import cwic
    from cwic.codec import loaded_for

    limits = None if max_pixels is None else cwic.Limits(max_pixels=max_pixels)
    codec = loaded_for(data, model, limits=limits)
    return codec.decode(data, region=region, reduce=reduce, limits=limits)


def _view(options: argparse.Namespace) -> int:
    return _for_each_file(options, _view_file, _PICTURE_SUFFIXES | {".cwic"}, ".map.png")


def _view_file(source: Path, target: Path, options: argparse.Namespace) -> None:
    import cwic
    from cwic.codec import loaded_for
    from cwic.image import encode_image, save_image
    from cwic.view import overlay

    if source.suffix.lower() == ".cwic":
        data = _read(source)
    else:
        data = cwic.encode(
            _picture_of(source),
            quality=options.quality,
            bpp=options.bpp,
            roi=options.roi,
            saliency=True if options.saliency else None,
            lossless=options.lossless,
            model=options.model,
            keep_metadata=False,
        )
    codec = loaded_for(data, options.model)
    sheet = overlay(codec.decode(data), codec.allocation(data))
    if target == _STDIO:
        _write(encode_image(sheet, "PNG"), target)
    else:
        save_image(sheet, target)
    header = _header(data)
    _say_result(
        f"{_shown(source)} -> {_shown(target, 'stdout')} of {len(data):,} B, "
        f"{_rate_bpp(data, header):.3f} bpp{_kept_whole(header)}",
        target,
        options,
    )


def _compare(options: argparse.Namespace) -> int:
    if options.input.suffix.lower() == ".cwic":
        _usage_error(options, f"expected the picture as it was before, found {options.input}")
    return _for_each_file(options, _compare_file, _PICTURE_SUFFIXES, ".html")


def _compare_file(source: Path, target: Path, options: argparse.Namespace) -> None:
    import cwic
    from cwic.evaluation.compare import compared, compared_page
    from cwic.image import read_picture, to_pil

    picture = to_pil(read_picture(_picture_of(source), keep_metadata=False)).convert("RGB")
    file = cwic.encode(
        picture,
        quality=options.quality,
        bpp=options.bpp,
        target_bytes=options.target_size,
        psnr_db=options.psnr,
        roi=options.roi,
        saliency=True if options.saliency else None,
        lossless=options.lossless,
        model=options.model,
        strict=options.strict,
    )
    shown = compared(_shown(source), picture, file, _decoded(file, options.model))
    _write(compared_page(shown).encode(), target)
    header = _header(file)
    _say_result(
        f"{_shown(source)} -> {_shown(target, 'stdout')} at {len(file):,} B, "
        f"{_rate_bpp(file, header):.3f} bpp{_kept_whole(header)}",
        target,
        options,
    )


def _batch(options: argparse.Namespace) -> int:
    # Neither times nor bytes shall depend on -j.
    one_from_the_start()
    from cwic import batch

    wishes = {
        "quality": options.quality,
        "bpp": options.bpp,
        "target_bytes": options.target_size,
        "psnr_db": options.psnr,
        "strict": options.strict,
        "lossless": options.lossless,
        "keep_metadata": not options.strip,
    }
    task: batch.Encoding | batch.Decoding
    if options.to == "cwic":
        task = batch.Encoding(model=options.model, **wishes)
    elif batch.Encoding(**wishes) != batch.Encoding():
        _usage_error(options, f"--to {options.to} decodes, it takes no option of encoding")
    else:
        task = batch.Decoding(options.to, options.model)
    summary = batch.run(
        options.input,
        options.output,
        task,
        suffixes=_PICTURE_SUFFIXES if options.to == "cwic" else frozenset({".cwic"}),
        jobs=options.jobs,
        ray_address=options.ray,
        force=options.force,
        show_progress=not options.quiet,
    )
    failed = summary.failed
    for outcome in failed[:_SHOWN_FAILURES]:
        _say_error(f"{outcome.source}: {outcome.error}")
    if failed:
        _say_error(f"{len(failed)} of {len(summary.outcomes)} failed, listed in {summary.table}")
    skipped = f", {summary.num_skipped} there before (-f makes them again)"
    whole = f", {summary.num_whole} kept whole" if summary.num_whole else ""
    if not options.quiet:
        _print(
            f"{options.input} -> {options.output} {summary.num_done} done"
            f"{skipped if summary.num_skipped else ''}{whole}, {len(failed)} failed, "
            f"{summary.input_bytes:,} B -> {summary.output_bytes:,} B, {summary.seconds:.1f} s",
            sys.stdout,
        )
    return 1 if failed else 0


def _serve(options: argparse.Namespace) -> int:
    from cwic.serve import serve

    def say(address: str) -> None:
        if not options.quiet:
            _print(f"{address} (Ctrl-C ends it)", sys.stdout)
            sys.stdout.flush()
        if options.host not in _LOOPBACK:
            _say(f"warning: whoever reaches {options.host} can use this page")

    serve(
        options.host,
        options.port,
        max_upload_bytes=options.max_upload,
        model=options.model,
        say=say,
    )
    return 0


def _data(options: argparse.Namespace) -> int:
    from cwic.evaluation.datasets import DATASETS, fetch

    dataset = DATASETS[options.name]
    folder = Path(options.output or options.name)
    if not options.quiet:
        _say(f"{options.name}: {dataset.about}; {dataset.licence}")
        if not dataset.is_tried:
            _say(f"{options.name}: its address has not been tried by this project")
    say = (lambda text: None) if options.quiet else _say
    files = fetch(dataset, folder, say=say, show_progress=not options.quiet)
    _say_result(f"{folder} {len(files)} pictures", folder, options)
    return 0


def _completion(options: argparse.Namespace) -> int:
    try:
        import shtab
    except ModuleNotFoundError:
        raise NotBuiltError(
            "completion needs shtab, found none: pip install 'cwic[completion]'"
        ) from None
    parser = _parser()
    verbs = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for verb in verbs.choices.values():
        for action in verb._actions:
            if action.type in (Path, _input, _location) or action.dest in ("output", "model"):
                action.complete = shtab.FILE
    print(shtab.complete(parser, options.shell))
    return 0


def _info(options: argparse.Namespace) -> int:
    from cwic.bitstream import check_length
    from cwic.image import Mode

    source: Path = options.input
    if source.suffix.lower() in _PICTURE_SUFFIXES:
        _usage_error(options, f"expected a .cwic file: cwic encode {source}?")
    data = _read(source)
    with _naming(source):
        header = _header(data)
        check_length(header, len(data))
    known = _known_model(header)
    sections: dict[str, int] = {}
    for section in header.sections:
        kind = section.kind.name.lower()
        sections[kind] = sections.get(kind, 0) + section.length
    facts: dict[str, Any] = {
        "file": _shown(source),
        "bytes": len(data),
        "bpp": round(_rate_bpp(data, header), 6),
        "width": header.width,
        "height": header.height,
        "mode": Mode(header.mode).pil_name,
        "grey": Mode(header.mode).is_grey,
        "model": known,
        "kept_whole": header.is_whole,
        "identity": header.identity.hex(),
        "q": header.q,
        "tile_px": header.tile_px,
        "tiles": header.num_tiles,
        "version": header.version,
        "sections": sections,
    }
    if options.json:
        print(json.dumps(facts, indent=2))
        return 0
    listed = ", ".join(f"{kind} {length:,} B" for kind, length in sections.items())
    tiles = "one" if header.tile_px is None else f"{header.num_tiles} of {header.tile_px} px"
    made_by = f"{known or 'not known to this version'}, identity {facts['identity']}"
    print(
        f"file      {facts['file']}\n"
        f"size      {len(data):,} B, {facts['bpp']:.3f} bpp\n"
        f"picture   {header.width}x{header.height} {facts['mode']}"
        f"{', all grey' if facts['grey'] and facts['mode'].startswith('RGB') else ''}\n"
        f"model     {'none, kept whole' if header.is_whole else made_by}\n"
        f"q         {header.q}, rate offset in 1/64\n"
        f"sections  {listed}\n"
        f"tiles     {tiles}\n"
        f"format    version {header.version}"
    )
    return 0


def _models(options: argparse.Namespace) -> int:
    from cwic.model_file import bundled_models

    models = bundled_models()
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
            for model in models
        ]
        print(json.dumps(facts, indent=2))
        return 0
    rows = [("name", "family", "identity", "size", "")]
    for model in models:
        size = f"{model.size_bytes / 1e6:.1f} MB"
        default = "default" if model.is_default else ""
        rows.append((model.name, model.family, model.identity.hex(), size, default))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    return 0


def _train(options: argparse.Namespace) -> int:
    with _extra("train", ("torch",), TrainingError):
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
    target = Path(options.output)
    _check_target(target, options.force, options.checkpoint)
    with _extra("train", ("torch",), TrainingError):
        from cwic.training.export import export_checkpoint

        model = export_checkpoint(options.checkpoint, target)
    _say_result(
        f"{options.checkpoint} -> {target} {model.size_bytes:,} B, "
        f"{model.family}, identity {model.identity.hex()}",
        target,
        options,
    )
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    paths: list[Path] = []
    for source in options.inputs:
        paths += _files_in(source, _PICTURE_SUFFIXES) if source.is_dir() else [source]
    one_from_the_start()
    with _extra(
        "evaluate", ("torch", "pytorch_msssim", "scipy", "ssimulacra2", "matplotlib"), NotBuiltError
    ):
        from cwic.evaluation.benchmark import evaluate

        result = evaluate(
            paths,
            options.out,
            codecs=options.codecs,
            processes=options.jobs,
            command=["cwic", *options.words],
            show_progress=not options.quiet,
        )
    for failure in result.failures:
        _say_error(str(failure))
    if not options.quiet:
        _print(
            f"{options.out / 'report.html'}: {result.measured} points measured, "
            f"{result.reused} from before, {len(result.failures)} failures",
            sys.stdout,
        )
    return 1 if result.failures else 0


@contextmanager
def _extra(name: str, modules: Sequence[str], kind: type[CodecError]) -> Iterator[None]:
    """Says how to install what a verb needs instead of which module is missing."""
    hint = f"this needs the extra {name!r}, found no {{}}: pip install 'cwic[{name}]'"
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise kind(hint.format(module))
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "cwic":
            raise
        raise kind(hint.format(error.name)) from error


# --- files and folders ----------------------------------------------------------------------------


def _for_each_file(
    options: argparse.Namespace,
    act: Callable[[Path, Path, argparse.Namespace], None],
    suffixes: frozenset[str],
    new_suffix: str,
) -> int:
    """Acts on the input and output the options name, or on each file of a folder."""
    source: Path = options.input
    output: str | None = options.output
    if source == _STDIO or not source.is_dir():
        own_name = Path(_shown(source)).with_suffix(new_suffix).name
        if output is None:
            target = _STDIO if source == _STDIO else source.with_name(own_name)
        elif output.endswith(("/", os.sep)) or Path(output).is_dir():
            target = Path(output) / own_name
        else:
            target = Path(output)
        _check_target(target, options.force, source)
        with _naming(source):
            act(source, target, options)
        return 0

    if output is None or output == "-":
        _usage_error(options, f"{source} is a folder, expected -o with a folder for the results")
    target = Path(output)
    pairs = _folder_pairs(source, target, suffixes, new_suffix)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise CodecError(f"{target}: expected a folder for the results, found a file") from None
    except OSError as error:
        raise CodecError(f"{target}: cannot create this folder: {error.strerror}") from error
    failed = []
    for one_source, one_target in pairs:
        try:
            _check_target(one_target, options.force, one_source)
            with _naming(one_source):
                act(one_source, one_target, options)
        except (CodecError, OSError, MemoryError) as error:
            if isinstance(error, ModelError | NotBuiltError | BrokenPipeError):
                raise  # it would be the same for each file
            _say_error(_reason(error))
            failed.append(one_source.name)
    if failed:
        _say_error(f"{len(failed)} of {len(pairs)} failed: {', '.join(failed)}")
    return 1 if failed else 0


def _folder_pairs(
    source: Path, target: Path, suffixes: frozenset[str], new_suffix: str
) -> list[tuple[Path, Path]]:
    """Each fitting file of a folder, not of its subfolders, and where its result goes."""
    from cwic.batch import result_names

    files = _files_in(source, suffixes)
    names = result_names([path.name for path in files], new_suffix)
    return [(path, target / name) for path, name in zip(files, names, strict=True)]


def _files_in(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """The fitting files of a folder, sorted; at least one."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.is_file())
    if not files:
        expected = "a .cwic file" if suffixes == {".cwic"} else "a picture"
        raise CodecError(f"{folder}: expected at least {expected} in this folder, found none")
    return files


def _check_target(target: Path, force: bool, source: Path | None = None) -> None:
    """Refuses, before any work is done, a result that could not be written or would destroy."""
    if target == _STDIO:
        if sys.stdout.isatty():
            raise CodecError("stdout is a terminal, expected a file or a pipe; -o FILE names one")
        return
    if not target.parent.is_dir():
        raise CodecError(
            f"{target}: expected an existing folder, found none: mkdir -p {target.parent}?"
        )
    if target.is_dir():
        raise CodecError(f"{target}: expected a file, found a folder")
    if source is not None and source.exists() and target.exists() and target.samefile(source):
        raise CodecError(f"{target}: is the input as well, expected another output")
    # Nothing is lost by writing to a device or a pipe.
    if not force and (target.is_file() or target.is_symlink()):
        raise CodecError(f"{target}: exists already; -f overwrites it")


def _read(source: Path) -> bytes:
    if source == _STDIO:
        return sys.stdin.buffer.read()
    if source.is_dir():
        raise CodecError(f"{source}: expected a file, found a folder")
    return source.read_bytes()


def _write(data: bytes, target: Path) -> None:
    from cwic.atomic_file import write_file

    if target == _STDIO:
        rest = memoryview(data)
        while rest:  # with PYTHONUNBUFFERED it takes what there is room for, and says how much
            rest = rest[sys.stdout.buffer.write(rest) :]
        sys.stdout.buffer.flush()
    else:
        write_file(target, data)


def _usage_error(options: argparse.Namespace, message: str) -> NoReturn:
    parser: argparse.ArgumentParser = options.parser
    parser.error(message)


# --- facts of a file ------------------------------------------------------------------------------


def _rate_bpp(data: bytes, header: "Header") -> float:
    return 8 * len(data) / (header.width * header.height)


def _known_model(header: "Header") -> str | None:
    from cwic.model_file import bundled_models

    names = [model.name for model in bundled_models() if model.identity == header.identity]
    return names[0] if names else None


def _made_by(header: "Header") -> str:
    if header.is_whole:
        return "kept whole"
    return f"model {_known_model(header) or header.identity.hex()}, q {header.q}"


def _kept_whole(header: "Header") -> str:
    return ", kept whole" if header.is_whole else ""


# --- messages -------------------------------------------------------------------------------------


def _shown(path: Path, standard: str = "stdin") -> str:
    return standard if path == _STDIO else str(path)


@contextmanager
def _naming(source: Path) -> Iterator[None]:
    """Puts the name of the file before errors and warnings that do not mention it themselves."""

    def named(text: str) -> str:
        name = "stdin" if source == _STDIO else source.name
        mentioned = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)
        return text if mentioned else f"{_shown(source)}: {text}"

    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_named(message: Warning | str, *where: Any, **more: Any) -> None:
            show(named(str(message)), *where, **more)

        warnings.showwarning = show_named
        try:
            yield
        except (BitstreamError, ImageError, TargetError) as error:
            if named(str(error)) == str(error):
                raise
            raise type(error)(named(str(error))) from error


@contextmanager
def _warnings_as_messages(*, quiet: bool) -> Iterator[None]:
    def show(message: Warning | str, *_where: Any, **_more: Any) -> None:
        if not quiet:
            _say(f"warning: {_one_line(str(message))}")

    with warnings.catch_warnings():
        # Each file gets its own, even if another had the same.
        warnings.simplefilter("always", CodecWarning)
        warnings.showwarning = show
        yield


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"{error.filename}: no such file"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return _one_line(str(error) or type(error).__name__)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _say_result(text: str, target: Path, options: argparse.Namespace) -> None:
    if not options.quiet:
        _print(text, sys.stderr if target == _STDIO else sys.stdout)


def _say(text: str) -> None:
    _print(text, sys.stderr)


def _say_error(text: str) -> None:
    _print(f"error: {text}", sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    # Names of files need not be text of this terminal.
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)
