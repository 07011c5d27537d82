"""The float transforms in ONNX Runtime: picture -> latents, latents -> picture.

Nothing computed here reaches the arithmetic coder other than through a decision that the encoder
takes once; so floats may differ between machines and a file still decodes.
"""

import threading
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from cwic.errors import CodecError, ModelError
from cwic.model_file import ModelFile

# A command's standard error belongs to the command.
onnxruntime.set_default_logger_severity(3)
onnxruntime.disable_telemetry_events()


class Cvpr2018Analysis(NamedTuple):
    """What the encoder side of a `cvpr2018` model says of a picture of 8 h x 8 w pixels."""

    activation: npt.NDArray[np.float32]  # (n, h, w) in (0, 1); a bit is activation > 0.5
    map_logits: npt.NDArray[np.float32]  # (h, w), logits of the importance map


class Engine:
    """Sessions of one model; each is made when it is first needed. Safe to share among threads."""

    def __init__(self, model: ModelFile, threads: int | None = None):
        """`threads`: of one call; None leaves the choice to ONNX Runtime (all cores)."""
        self._graphs = {"analysis": model.analysis, "synthesis": model.synthesis}
        self._name = model.name
        self._threads = threads
        self._sessions: dict[str, Any] = {}
        self._lock = threading.Lock()

    def analyze(self, pixels: npt.NDArray[np.uint8]) -> Cvpr2018Analysis:
        """(8 h, 8 w, 3) uint8 -> activations and map logits."""
        activation, map_logits = self._run("analysis", pixels[None])
        return Cvpr2018Analysis(activation[0], map_logits[0, 0])

    def synthesize(self, code: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Masked code (n, h, w) of 0 and 1 -> (8 h, 8 w, 3) uint8."""
        (pixels,) = self._run("synthesis", code[None])
        result: npt.NDArray[np.uint8] = pixels[0]
        return result

    def _run(self, name: str, value: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        session = self._session(name)
        (graph_input,) = session.get_inputs()
        try:
            result: list[npt.NDArray[Any]] = session.run(None, {graph_input.name: value})
        except Exception as error:  # ONNX Runtime's exceptions share no public base
            reason = " ".join(str(error).split())[:200]
            raise CodecError(
                f"model {self._name}: {name} of an array of shape {value.shape} failed, "
                f"for want of memory perhaps: {reason}"
            ) from error
        return result

    def _session(self, name: str) -> Any:
        with self._lock:
            if name not in self._sessions:
                options = onnxruntime.SessionOptions()
                options.log_severity_level = 3
                if self._threads is not None:
                    options.intra_op_num_threads = self._threads
                try:
                    self._sessions[name] = onnxruntime.InferenceSession(
                        self._graphs[name], options, providers=["CPUExecutionProvider"]
                    )
                except Exception as error:  # ONNX Runtime's exceptions share no public base
                    raise ModelError(f"model {self._name}: bad {name} graph: {error}") from error
            return self._sessions[name]
