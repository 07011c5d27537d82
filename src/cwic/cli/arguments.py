"""The words of a person: verbs, options, their types, and hints after wrong usage.

Leaves what a verb does to :mod:`cwic.cli.verbs`.
"""

import argparse
import difflib
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from cwic import __version__, defaults
from cwic.defaults import CODEC_FORMAT, CODEC_SUFFIX, PICTURE_FORMATS, PICTURE_SUFFIXES

if TYPE_CHECKING:
    from cwic.request import Request

# Fields of `Request`; an option that sets one stores it under the same name.
_REQUEST = (
    "quality bpp target_bytes psnr_db ssimulacra2 roi roi_strength saliency strict effort lossless"
    " keep_metadata max_pixels truncated"
).split()
# Of these what asks for a size or a score, which --strict insists on.
_GOALS = ("bpp", "target_bytes", "psnr_db", "ssimulacra2")

# A guess at an option that does not exist is at least so much like it.
_MIN_LIKENESS = 0.7

_VERBS_OF_FILES = ("encode", "decode", "view", "compare")

_LARGEST_SIZE_BYTES = 10**15


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of a command, `verb` among them.

    Raises:
        SystemExit: 2 after a message and a hint for wrong usage, 0 after help and version.
    """
    parser = build_parser()
    _check_verb(parser, words)
    options, rest = parser.parse_known_args(words)
    if rest:
        _refuse_rest(options, rest)
    _check_combination(options)
    options.words = list(words)
    return options


def request_of(options: argparse.Namespace) -> "Request":
    """What the options ask of a picture; what a verb has no option for stays at its default."""
    from cwic.request import Request

    return Request(**{name: value for name, value in vars(options).items() if name in _REQUEST})


# --- types ----------------------------------------------------------------------------------------


def input_path(text: str) -> Path:
    """A path; an empty one is a shell variable that was not set, and not this folder."""
    if not text or "://" in text:
        found = f"{text}: cwic batch takes URLs of folders" if text else "nothing"
        raise argparse.ArgumentTypeError(f"expected a file, a folder or -, found {found}")
    return Path(text)


def output_name(text: str) -> str:
    """Where results go; an empty name is a shell variable that was not set, and not the default."""
    return _given(text, "a file, a folder or -")


def location(text: str) -> str:
    """A folder by path or URL; as text, because a Path would fold the slashes of a URL."""
    return _given(text, "a folder or a URL")


def mask_path(text: str) -> Path:
    """A picture beside the one that is encoded."""
    return Path(_given(text, "a picture"))


def model_name(text: str) -> str:
    """A bundled model's name, or the path of a model file."""
    return _given(text, "the name or the file of a model")


def _given(text: str, expected: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError(f"expected {expected}, found nothing")
    return text


def size_bytes(text: str) -> int:
    """'40kB', '40 kB', '1.5MB', '40KiB' or '40000' -> bytes; 1 kB is 1000 B."""
    pattern = r"\s*(\d+\.?\d*|\.\d+)\s*(?:([kmg])(ib|b)?|b?)\s*"
    match = re.fullmatch(pattern, text, re.ASCII | re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a size like 40kB or 40000, found {text!r}")
    power = "kmg".index(match[2].lower()) + 1 if match[2] else 0
    unit_bytes: int = (1024 if (match[3] or "").lower() == "ib" else 1000) ** power
    value = float(match[1]) * unit_bytes
    if not 0.5 < value < _LARGEST_SIZE_BYTES:
        raise argparse.ArgumentTypeError(
            f"expected 1 byte to {_LARGEST_SIZE_BYTES:,}, found {text[:40]!r}"
        )
    return round(value)


def _number(
    fits: Callable[[float], bool], expected: str, kind: type[float] = float
) -> Callable[[str], float]:
    """The type of a number that fits; messages call it `expected`."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not fits(value):
            raise argparse.ArgumentTypeError(f"expected {expected}, found {text!r}")
        return kind(value)

    return number


_positive = _number(lambda value: value > 0, "a number above 0")
_count = _number(lambda value: value >= 1 and value == int(value), "a whole number above 0", int)
_port = _number(lambda value: value in range(1, 65536), "1 to 65535", int)


def _number_to(largest: float) -> Callable[[str], float]:
    return _number(lambda value: 0 <= value <= largest, f"0 to {largest:g}")


def _region(text: str) -> tuple[int, int, int, int]:
    try:
        x, y, width, height = (int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected X,Y,W,H, four integers, found {text!r}"
        ) from None
    return x, y, width, height


# --- options and verbs ----------------------------------------------------------------------------


class _Option(NamedTuple):
    """What `add_argument` is called with."""

    flags: str
    settings: dict[str, Any]

    def but(self, summary: str, **settings: Any) -> "_Option":
        """The same option with another help, for one verb."""
        return _Option(self.flags, {**self.settings, "help": summary, **settings})


def _option(flags: str, summary: str, **settings: Any) -> _Option:
    """An option, or a positional argument."""
    return _Option(flags, {"help": summary, **settings})


def _value(flags: str, metavar: str, kind: Any, summary: str, **settings: Any) -> _Option:
    """One with a value; `kind` makes it of a word."""
    return _option(flags, summary, metavar=metavar, type=kind, **settings)


def _switch(flags: str, summary: str, action: str = "store_true", **settings: Any) -> _Option:
    return _option(flags, summary, action=action, **settings)


class _Verb:
    """A verb; its examples stand at the end of its help, and a test runs them."""

    def __init__(self, summary: str, *options: _Option, examples: str):
        self.summary, self.options, self.examples = summary, options, examples


_PICTURE = _value("input", "PICTURE", input_path, "a file, a folder or -")
_FILE = _value("input", "FILE", input_path, "a .cwic file, a folder or -")
_OUTPUT = _value("-o --output", "OUT", output_name, "")
_FORCE = _switch("-f --force", "overwrite existing files")
_QUALITY = _value(
    "-q --quality", "0..100", _number_to(100), f"quality (default: {defaults.DEFAULT_QUALITY:g})"
)
_BPP = _value("--bpp", "X", _positive, "bits of the file per pixel")
_SIZE = _value(
    "--target-size", "SIZE", size_bytes, "file size: 40kB, 1.5MB, 40KiB, ...", dest="target_bytes"
)
_PSNR = _value("--psnr", "DB", _positive, "PSNR of the picture in dB", dest="psnr_db")
_SSIMULACRA2 = _value(
    "--ssimulacra2",
    "SCORE",
    _number(lambda value: 0 < value <= 100, "a number above 0, at most 100"),
    "SSIMULACRA2 of the picture; needs the extra 'evaluate'",
)
_TARGETS = (_QUALITY, _BPP, _SIZE, _PSNR, _SSIMULACRA2)  # at most one of them
_STRICT = _switch("--strict", "fail instead of exceeding the size or missing PSNR or SSIMULACRA2")
_EFFORT = _option(
    "-e --effort",
    "look longer for a smaller file of the same quality (default: 0)",
    choices=range(defaults.MAX_EFFORT + 1),
    type=int,
    default=0,
)
_LOSSLESS = _option(
    "--lossless",
    "keep the picture whole, without any loss: auto (the default) does so where it is cheap, or "
    "keeps fewer colours, or text and graphics alone, where that is better",
    choices=defaults.LOSSLESS,
    default=defaults.LOSSLESS[0],
)
_ROI = _value("--roi", "MASK", mask_path, "a picture that is white where it matters")
_ROI_STRENGTH = _value(
    "--roi-strength",
    f"0..{defaults.MAX_ROI_STRENGTH:g}",
    _number_to(defaults.MAX_ROI_STRENGTH),
    "how much the mask counts (default: 1)",
    default=1.0,
)
_SALIENCY = _switch("--saliency", "give more bits to what eyes look at", "store_const", const=True)
_STRIP = _switch("--strip", "drop ICC, EXIF and XMP", "store_false", dest="keep_metadata")
_MODEL = _value("--model", "NAME|PATH", model_name, "a name from cwic models, or a model file")
_MAX_PIXELS = _value(
    "--max-pixels", "N", _count, f"refuse larger pictures (default: {defaults.MAX_PIXELS:,})"
)
_TRUNCATED = _switch("--truncated", "take what is there of a picture file that ends too early")
_FAST = _switch("--fast", "nearly the same picture in less time")
_JOBS = _value("-j --jobs", "N", _count, "")
_JSON = _switch("--json", "print JSON for programs")
_QUIET = _switch("--quiet", "print errors only")
_VERBOSE = _switch("-v --verbose", "print more")

_VERBS = {
    "encode": _Verb(
        "turn a picture into a .cwic file",
        _PICTURE,
        _OUTPUT.but("the .cwic file, a folder for the files of a folder, or - for stdout"),
        *(_FORCE, *_TARGETS, _STRICT, _EFFORT, _ROI, _ROI_STRENGTH, _SALIENCY, _LOSSLESS),
        *(_STRIP, _MODEL),
        *(_MAX_PIXELS, _TRUNCATED),
        examples="""
  cwic encode photo.png                        makes photo.cwic at quality 50
  cwic encode photo.png -o small.cwic --bpp 0.3
  cwic encode photo.png --target-size 40kB -f  overwrites photo.cwic
  cwic encode photo.png --effort 5             takes longer, and less room
  cwic encode photo.png --roi mask.png         moves bits to where the mask is white
  cwic encode photos/ -o files/                a folder without its subfolders""",
    ),
    "decode": _Verb(
        "turn a .cwic file into a picture",
        *(_FILE, _OUTPUT.but("the picture; its extension selects the format (default: .png)")),
        *(_FORCE, _MODEL.but("the model file, if cwic models does not list the model")),
        _option("--to", "format for folders and stdout", choices=PICTURE_FORMATS),
        _value("--region", "X,Y,W,H", _region, "decode a part of the picture, in pixels"),
        _option(
            "--reduce",
            "make each side so many times smaller; 8 is a quick preview",
            choices=defaults.REDUCTIONS,
            type=int,
            default=1,
        ),
        *(_FAST, _MAX_PIXELS),
        examples="""
  cwic decode photo.cwic                       makes photo.png
  cwic decode photo.cwic -o photo.webp         the extension selects the format
  cwic decode photo.cwic --region 0,0,640,480  decodes only what it needs
  cwic decode photo.cwic --reduce 8 -o small.png
  cwic decode files/ -o pictures/ --to jpg     a folder without its subfolders
  cwic decode - -o - --to webp                 from a pipe into a pipe""",
    ),
    "view": _Verb(
        "show where the bits of a picture go",
        _PICTURE.but("a picture, a .cwic file, a folder or -"),
        _OUTPUT.but("the picture to make (default: NAME.map.png), a folder, or -"),
        *(_FORCE, _QUALITY, _BPP, _LOSSLESS, _ROI, _SALIENCY, _TRUNCATED, _MODEL),
        examples="""
  cwic view photo.png                          makes photo.map.png, at quality 50
  cwic view photo.cwic -o map.png""",
    ),
    "compare": _Verb(
        "make a page of a picture by cwic and by other codecs",
        *(_PICTURE, _OUTPUT.but("the page to make (default: NAME.html), a folder, or -")),
        *(_FORCE, *_TARGETS, _STRICT, _EFFORT, _LOSSLESS, _ROI, _SALIENCY, _TRUNCATED, _MODEL),
        examples="""
  cwic compare photo.png --bpp 0.25            makes photo.html; open it in a browser""",
    ),
    "batch": _Verb(
        "encode or decode a folder and all folders in it",
        _value("input", "IN", location, "a folder, or a URL like s3://..."),
        _value("output", "OUT", location, "a folder for the results"),
        _option(
            "--to",
            "what to make: cwic (the default) encodes, a picture format decodes",
            choices=(CODEC_FORMAT, *PICTURE_FORMATS),
            default=CODEC_FORMAT,
        ),
        *(*_TARGETS, _STRICT, _EFFORT, _LOSSLESS, _STRIP, _TRUNCATED, _FAST, _MODEL),
        _JOBS.but("number of workers (default: one for each processor)"),
        _value("--ray", "local|ADDRESS", None, "use a Ray cluster; needs the extra 'ray'"),
        _FORCE.but("make existing results again"),
        examples="""
  cwic batch photos/ files/ -q 60              subfolders too; repeat it to continue
  cwic batch files/ pictures/ --to webp        turns the files into pictures again
  cwic batch photos/ files/ -j 2               uses two processes, and less memory
  cwic batch s3://in/photos s3://out/files --ray 10.0.0.1:6379""",
    ),
    "serve": _Verb(
        "serve a web page that encodes and compares; needs the extra 'demo'",
        _value(
            "--host",
            "ADDRESS",
            None,
            f"address (default: {defaults.HOST}, this machine)",
            default=defaults.HOST,
        ),
        _value("--port", "N", _port, f"port (default: {defaults.PORT})", default=defaults.PORT),
        _value(
            "--max-upload",
            "SIZE",
            size_bytes,
            f"refuse larger files (default: {defaults.MAX_UPLOAD_BYTES // 10**6}MB)",
            default=defaults.MAX_UPLOAD_BYTES,
        ),
        _MODEL.but("the model that the page selects at first"),
        examples="""
  cwic serve                                   open http://127.0.0.1:7860 in a browser
  cwic serve --port 8000 --max-upload 20MB""",
    ),
    "info": _Verb(
        "print what a .cwic file holds, without decoding it",
        *(_FILE.but("a .cwic file, or -"), _JSON),
        examples="\n  cwic info photo.cwic\n  cwic info photo.cwic --json",
    ),
    "models": _Verb(
        "list the models that come with cwic",
        _JSON,
        _value("--web", "FOLDER", Path, "write what a browser needs to decode; see web/README.md"),
        _MODEL.but("a model for --web (default: all usable); may be repeated", action="append"),
        examples="""
  cwic models
  cwic models --web site/models                for pages that show .cwic files""",
    ),
    "train": _Verb(
        "train a model; needs the extra 'train'",
        _value("config", "CONFIG.toml", Path, "the training recipe"),
        _value("--data", "FOLDER", Path, "folders of pictures", nargs="+", required=True),
        _value("--out", "FOLDER", Path, "a folder for the run, new or to continue", required=True),
        _value("--init-from", "FILE", Path, "a checkpoint or model file to start from"),
        _value("--max-seconds", "S", _positive, "save and stop after this time"),
        _value("--threads", "N", _count, "number of processor threads"),
        _value("--device", "NAME", None, "device to train on: cpu, cuda, ..."),
        examples="""
  cwic train configs/cvpr2018.toml --data photos/ --out run
  cwic train configs/cvpr2018.toml --data photos/ --out run --max-seconds 3600""",
    ),
    "export": _Verb(
        "turn a checkpoint into a model file; needs the extra 'train'",
        _value("checkpoint", "CHECKPOINT", Path, "a file of a training run"),
        _OUTPUT.but("the model file to make", required=True),
        _value("--identity-of", "MODEL", Path, "keep the decoder of this model file"),
        _FORCE,
        examples="\n  cwic export run/best.safetensors -o mine.cwicmodel",
    ),
    "data": _Verb(
        "download a public set of pictures",
        _option("action", "fetch downloads the set", choices=("fetch",)),
        _option("name", "name of the set", choices=defaults.DATASET_NAMES),
        _OUTPUT.but("a folder for the files (default: the set's name)", metavar="FOLDER"),
        examples="""
  cwic data fetch kodak                        fills the folder kodak/; repeat it to continue""",
    ),
    "completion": _Verb(
        "print a script with which a shell completes cwic commands",
        _option("shell", "the shell", choices=("bash", "zsh", "fish")),
        examples="""
  cwic completion bash > ~/.local/share/bash-completion/completions/cwic
  cwic completion zsh > ~/.zfunc/_cwic         in a folder of your $fpath
  cwic completion fish > ~/.config/fish/completions/cwic.fish""",
    ),
    "evaluate": _Verb(
        "measure models and other codecs; needs the extra 'evaluate'",
        _value("inputs", "IMAGES", input_path, "pictures, or folders of them", nargs="+"),
        _value(
            "--codecs",
            "NAME",
            None,
            "jpeg, jpeg2000, webp, avif, avif-444, jpegxl, heic, cwic:MODEL, cwic:MODEL@effort=5 "
            "(default: all installed)",
            nargs="+",
        ),
        _value("--out", "FOLDER", Path, "a folder for the results", required=True),
        _JOBS.but("number of processes (default: 1)", default=1),
        examples="""
  cwic evaluate kodak/ --out results/ -j 2
  cwic evaluate photo.png --codecs cwic:cvpr2018 jpeg avif --out results/""",
    ),
}
_EXAMPLES = """
  cwic encode photo.png                        makes photo.cwic
  cwic encode photo.png --target-size 40kB
  cwic decode photo.cwic -o photo.jpg
  cwic batch photos/ files/                    a folder and all folders in it
  cwic compare photo.png                       a page with JPEG, WebP and AVIF
  cwic encode --help                           options and more examples"""


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Leaves examples as they are, and the longest verb on the line of its help."""

    def format_help(self) -> str:
        # Verbs are indented by this much; argparse forgets it when it makes room for them.
        self._action_max_length += self._indent_increment
        return super().format_help()


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="cwic",
        description="Content-weighted image compression: pictures to small .cwic files and back.",
        epilog=f"examples:{_EXAMPLES}",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"cwic {__version__}")
    parsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in _VERBS.items():
        own = parsers.add_parser(
            name,
            help=verb.summary,
            description=verb.summary[0].upper() + verb.summary[1:] + ".",
            epilog=f"examples:{verb.examples}",
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )
        own.set_defaults(parser=own)
        if _QUALITY in verb.options:
            group = own.add_argument_group("size or quality (at most one)")
            rate = group.add_mutually_exclusive_group()
        for option in (*verb.options, _QUIET, _VERBOSE):
            place = rate if option in _TARGETS else own
            place.add_argument(*option.flags.split(), **option.settings)
    return parser


# --- hints ----------------------------------------------------------------------------------------


def _check_verb(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Refuses a first word that is no verb, with a guess; without any word, prints the help."""
    if not words:
        parser.print_help(sys.stderr)
        parser.exit(2)
    word = words[0]
    if word.startswith("-") or word in _VERBS:
        return
    close = difflib.get_close_matches(word, _VERBS, 1)
    if Path(word).suffix.lower() in PICTURE_SUFFIXES:
        hint = f"cwic encode {word}?"
    elif Path(word).suffix.lower() == CODEC_SUFFIX:
        hint = f"cwic decode {word}?"
    else:
        hint = f"cwic {close[0]}?" if close else "cwic --help lists the verbs"
    parser.error(f"expected a verb, found {word!r}: {hint}")


def _refuse_rest(options: argparse.Namespace, rest: Sequence[str]) -> NoReturn:
    """Refuses words that a verb does not take, with a guess at what was meant."""
    parser: argparse.ArgumentParser = options.parser
    word = rest[0]
    known = [name for action in parser._actions for name in action.option_strings]
    hint = f"{parser.prog} --help lists the options"
    if word.startswith("-"):
        name = word.partition("=")[0]
        # `--size` is nearer to `--strip` in letters than to the option that ends with it.
        close = [option for option in known if option.endswith(name.lstrip("-"))]
        close += difflib.get_close_matches(name, known, 1, _MIN_LIKENESS)
        if close:
            hint = f"{close[0]}?"
    elif options.verb in _VERBS_OF_FILES:
        hint = f"{parser.prog} takes one file, or a folder with -o FOLDER"
    parser.error(f"cannot use {word!r}: {hint}")


def _begins_coded(source: Path) -> bool:
    from cwic.encoded_source import begins_coded

    try:
        return source.is_file() and begins_coded(source)
    except OSError:  # whoever reads all of it says why that fails
        return False


def _check_combination(options: argparse.Namespace) -> None:
    """Refuses options and files that do not fit together."""
    refuse = options.parser.error
    verb: str = options.verb
    if verb == "batch" and options.to != CODEC_FORMAT:
        requested = {name: value for name, value in vars(options).items() if name in _REQUEST}
        if any(value != options.parser.get_default(name) for name, value in requested.items()):
            refuse(f"--to {options.to} decodes, so it takes no option for encoding")
    if verb == "batch" and options.to == CODEC_FORMAT and options.fast:
        refuse("--fast decodes, so it needs --to with the format of the pictures")
    if verb == "models" and options.model and not options.web:
        refuse("--model needs --web")
    goals = [getattr(options, name, None) for name in _GOALS]
    if getattr(options, "strict", False) and all(goal is None for goal in goals):
        refuse("--strict needs --bpp, --target-size, --psnr or --ssimulacra2")
    if getattr(options, "roi_strength", 1.0) != 1.0 and options.roi is None:
        refuse("--roi-strength needs --roi")
    if verb not in (*_VERBS_OF_FILES, "info"):
        return
    source: Path = options.input
    suffix = source.suffix.lower()
    output: str = getattr(options, "output", None) or ""
    makes_picture = Path(output).suffix.lower() in PICTURE_SUFFIXES
    # A file may have the other's name: then its content says what fits.
    is_coded = _begins_coded(source)
    if verb in ("decode", "info") and suffix in PICTURE_SUFFIXES and not is_coded:
        refuse(f"expected a .cwic file: cwic encode {source}?")
    is_no_picture = is_coded or (suffix == CODEC_SUFFIX and not source.is_file())
    if verb == "encode" and is_no_picture:
        refuse(f"expected a picture: cwic decode {source}?")
    if verb == "compare" and is_no_picture:
        refuse(f"expected the original picture, found {source}")
    if verb == "encode" and makes_picture:
        refuse(f"encode makes .cwic files, found -o {output}")
    if verb == "compare" and (makes_picture or Path(output).suffix.lower() == CODEC_SUFFIX):
        refuse(f"compare makes .html pages, found -o {output}")
    if str(source) == "-" and str(getattr(options, "roi", None)) == "-":
        refuse("the picture and its mask cannot both be the standard input")
    if verb == "decode" and makes_picture and options.to is not None:
        refuse(f"the extension of {output} selects the format, found --to {options.to}")
    if verb != "info" and output in ("", "-") and str(source) != "-" and source.is_dir():
        refuse(f"{source} is a folder, expected -o with a folder for the results")
