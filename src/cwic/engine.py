"""Graphs of a model in ONNX Runtime.

Nothing computed here reaches the arithmetic coder other than through a decision that the encoder
takes once; so floats may differ between machines and a file still decodes. Which graphs there are,
and what goes in and out, belongs to the families.
"""

import contextlib
import threading
from typing import Any

import numpy.typing as npt
import onnxruntime

from cwic.errors import CodecError, ModelError, reason
from cwic.model_file import ModelFile

# A command's standard error belongs to the command.
onnxruntime.set_default_logger_severity(3)
onnxruntime.disable_telemetry_events()


def new_session(graph: bytes, threads: int | None = None) -> Any:
    """A session on the processor; whatever is wrong with the graph is ONNX Runtime's exception.

    Args:
        graph: checked by :mod:`cwic.onnx_check`.
        threads: of one call; None leaves the choice to ONNX Runtime (all cores).
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Bytes may also look like the runtime's own format, of which nothing was checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class Engine:
    """Sessions of one model; each is made when it is first needed. Safe to share among threads."""

    def __init__(self, model: ModelFile, threads: int | None = None):
        """`threads`: of one call; None leaves the choice to ONNX Runtime (all cores)."""
        self._graphs = model.graphs
        self._name = model.name
        self._threads = threads
        self._sessions: dict[str, Any] = {}
        self._lock = threading.Lock()

    def has(self, graph: str) -> bool:
        """Whether the model has a graph of this name."""
        return graph in self._graphs

    def run(self, graph: str, *inputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """A graph's outputs, its inputs given in its own order.

        Raises:
            CodecError: the graph cannot be run on these inputs, for want of memory perhaps.
            ModelError: it is no graph.
        """
        session = self._session(graph)
        try:
            names = [graph_input.name for graph_input in session.get_inputs()]
            result: list[npt.NDArray[Any]] = session.run(
                None, dict(zip(names, inputs, strict=True))
            )
        except Exception as error:  # ONNX Runtime's exceptions share no public base
            shapes = ", ".join(str(value.shape) for value in inputs)
            raise CodecError(
                f"model {self._name}: {graph} of an array of shape {shapes} failed, "
                f"for want of memory perhaps: {reason(error)[:200]}"
            ) from error
        return result

    def prepare(self, graph: str) -> None:
        """Begin with the session of a graph that is going to be run, and go on meanwhile."""
        if graph not in self._sessions:
            threading.Thread(target=self._prepare, args=(graph,)).start()

    def _prepare(self, graph: str) -> None:
        with contextlib.suppress(ModelError):  # whoever runs the graph is told
            self._session(graph)

    def _session(self, graph: str) -> Any:
        with self._lock:
            if graph not in self._sessions:
                if graph not in self._graphs:
                    raise ModelError(f"model {self._name}: expected a graph {graph}, found none")
                content = self._graphs[graph]
                try:
                    self._sessions[graph] = new_session(content, self._threads)
                except Exception as error:  # ONNX Runtime's exceptions share no public base
                    raise ModelError(f"model {self._name}: bad {graph} graph: {error}") from error
            return self._sessions[graph]
