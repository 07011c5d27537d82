"""Models for the decoder in a browser: the decoder's half, in files that are fetched when needed.

A folder holds `index.json` and for each model one or two parts, which are model files with fewer
entries. The first part has the arrays, the preview and the lightest synthesis; where that is
`fast`, the second has `synthesis`. A part is named by the model's identity and a hash of its own
bytes, so that a browser may keep it for ever.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cwic.atomic_file import write_file
from cwic.errors import CodecError, ModelError, reason
from cwic.families.flagship.family import FAMILY
from cwic.model_file import EXTENSION, ModelFile, bundled_models, load, packed

INDEX = "index.json"
_FORMAT = "cwic-web-1"
_HASH_DIGITS = 16


def usable_models() -> list[Path]:
    """The bundled models of the family that the browser's decoder knows."""
    return [model.path for model in bundled_models() if model.family == FAMILY]


def write_web_models(models: Sequence[Path], folder: Path) -> list[Path]:
    """Write the parts of models, then the index of all that the folder now has: their paths.

    Models that the index named before stay in it.

    Raises:
        ModelError: a file is damaged or of another family.
        CodecError: the folder cannot be written.
    """
    loaded = [load(path, for_decoding=True) for path in models]
    for model in loaded:
        if model.family != FAMILY:
            raise ModelError(
                f"{model.name}: a browser decodes models of the family {FAMILY}, "
                f"found one of {model.family}"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CodecError(f"cannot make {folder}: {reason(error)}") from error
    index = _read_index(folder / INDEX)
    written = []
    for model in loaded:
        parts = {}
        for part_name, graphs in _parts(model).items():
            data = packed(
                replace(
                    model,
                    encoding={},
                    graphs={name: model.graphs[name] for name in graphs},
                    arrays=model.arrays if part_name == "first" else {},
                )
            )
            digest = hashlib.sha256(data).hexdigest()[:_HASH_DIGITS]
            path = folder / f"{model.identity.hex()}-{part_name}-{digest}{EXTENSION}"
            write_file(path, data)
            parts[part_name] = {"file": path.name, "bytes": len(data), "graphs": graphs}
            written.append(path)
        index["models"][model.identity.hex()] = {"name": model.name, **parts}
    write_file(folder / INDEX, (json.dumps(index, indent=1, sort_keys=True) + "\n").encode())
    return [*written, folder / INDEX]


def _parts(model: ModelFile) -> dict[str, list[str]]:
    """Graphs of each part, by its name."""
    preview = ["preview"] if "preview" in model.graphs else []
    if "fast" in model.graphs:
        return {"first": [*preview, "fast"], "full": ["synthesis"]}
    return {"first": [*preview, "synthesis"]}


def _read_index(path: Path) -> dict[str, Any]:
    """What a folder has so far."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {"format": _FORMAT, "models": {}}
    except (OSError, ValueError) as error:
        raise CodecError(f"{path}: expected an index of models, found {error}") from error
    fits = isinstance(found, dict) and found.get("format") == _FORMAT
    if not fits or not isinstance(found.get("models"), dict):
        raise CodecError(f"{path}: expected an index of models of the format {_FORMAT}")
    return found
