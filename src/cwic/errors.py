"""Every exception and warning that this package raises on purpose, and one line for any exception.

A message names what was found and what was expected. Where and when each one is raised is left to
the modules that raise it.
"""


class CodecError(Exception):
    """Base of all errors that come from bad input or from the surroundings, never from a bug."""


class ImageError(CodecError):
    """A picture cannot be read or written, or its kind is not supported."""


class BitstreamError(CodecError):
    """Bytes that should be a .cwic file are damaged, hostile or something else."""


class UnknownModelError(BitstreamError):
    """A sound file names a model that is not available here."""


class ModelError(CodecError):
    """A model name or a model file is missing or invalid."""


class TargetError(CodecError):
    """A strict target, a region or a fast decode cannot be had of this picture or model."""


class TrainingError(CodecError):
    """A training configuration, data set or checkpoint cannot be used."""


class NotBuiltError(CodecError):
    """A feature is not installed here, or not written yet; the message names the extra to install.

    Also raised for a feature that Pillow or another library was compiled without.
    """


class CodecWarning(UserWarning):
    """The result is usable but deviates from the request: the nearest size, 8 of 16 bits, ..."""


def reason(error: BaseException) -> str:
    """Why something failed, as one line, perhaps a long one, that stands at the end of a message.

    Errors of the system are in the system's words, without number and file name: the message names
    the file. An exception without text is named by its class.
    """
    if isinstance(error, MemoryError):
        return "not enough memory"
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__
