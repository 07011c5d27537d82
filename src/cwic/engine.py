"""Graphs of a model in ONNX Runtime.

No float computed here reaches the arithmetic coder other than through a decision that the encoder
takes once; so floats may differ between machines and a file still decodes. Products of integers do
reach it, those of :mod:`cwic.families.flagship.digit_products`, which shows that they are the same
on every machine. Which graphs there are, and what goes in and out, belongs to the families.

This is the only module that imports ONNX Runtime, so that three promises stand in one place: it
tells nobody that it runs, a forked process neither runs nor ends the sessions of its parent, and
what runs no network, a picture kept whole for one, does not load it.
"""

import contextlib
import ctypes
import os
import threading
import weakref
from functools import cache
from typing import Any

import numpy.typing as npt

from cwic.errors import CodecError, ModelError, reason
from cwic.model_file import ModelFile

# What a forked process must begin anew: it has the memory of its parent and none of its threads.
_inherited: "weakref.WeakSet[Session | Engine]" = weakref.WeakSet()


class Session:
    """A graph that can be run on the processor; a forked process makes its own when it runs it."""

    def __init__(self, graph: bytes, threads: int | None = None, *, is_large: bool = False):
        """Whatever is wrong with the graph is ONNX Runtime's exception.

        Args:
            graph: checked by :mod:`cwic.onnx_check`.
            threads: of one call; None leaves the choice to ONNX Runtime (all cores).
            is_large: memory is worth more than a little time, and sizes of inputs change.
        """
        self._graph = graph
        self._threads = threads
        self._is_large = is_large
        self._lock = threading.Lock()
        self._session: Any = _new_session(graph, threads, is_large)
        self.inputs: list[Any] = self._session.get_inputs()
        _inherited.add(self)

    def run(self, *inputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """The graph's outputs, its inputs given in its own order."""
        with self._lock:
            if self._session is None:
                self._session = _new_session(self._graph, self._threads, self._is_large)
            session = self._session
        names = [graph_input.name for graph_input in self.inputs]
        outputs: list[npt.NDArray[Any]] = session.run(None, dict(zip(names, inputs, strict=True)))
        return outputs

    def begin_anew(self) -> None:
        """Called in a forked process."""
        self._lock = threading.Lock()
        if self._session is not None:
            # Its end would wait for its threads, which are not here: so it never ends.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
            self._session = None


class Engine:
    """Sessions of one model; each is made when it is first needed. Safe to share among threads."""

    def __init__(self, model: ModelFile, threads: int | None = None, *, is_large: bool = False):
        """`threads`: of one call; None leaves the choice to ONNX Runtime; `is_large` as above."""
        self._is_large = is_large
        self._graphs = model.graphs
        self._name = model.name
        self._threads = threads
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        _inherited.add(self)

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
            return session.run(*inputs)
        except Exception as error:  # ONNX Runtime's exceptions share no public base
            shapes = ", ".join(str(value.shape) for value in inputs)
            raise CodecError(
                f"model {self._name}: {graph} of an array of shape {shapes} failed, "
                f"for want of memory perhaps: {reason(error)[:200]}"
            ) from error

    def prepare(self, graph: str) -> None:
        """Begin with the session of a graph that is going to be run, and go on meanwhile."""
        if graph not in self._sessions:
            _runtime()  # not in the thread: who forks meanwhile would inherit half an import
            threading.Thread(target=self._prepare, args=(graph,)).start()

    def release(self) -> None:
        """Give back the memory of all sessions; each is made again when it is needed."""
        with self._lock:
            self._sessions.clear()

    def begin_anew(self) -> None:
        """Called in a forked process, perhaps while another thread of the parent was inside."""
        self._lock = threading.Lock()

    def _prepare(self, graph: str) -> None:
        with contextlib.suppress(ModelError):  # whoever runs the graph is told
            self._session(graph)

    def _session(self, graph: str) -> Session:
        with self._lock:
            if graph not in self._sessions:
                if graph not in self._graphs:
                    raise ModelError(f"model {self._name}: expected a graph {graph}, found none")
                content = self._graphs[graph]
                try:
                    self._sessions[graph] = Session(content, self._threads, is_large=self._is_large)
                except Exception as error:  # ONNX Runtime's exceptions share no public base
                    raise ModelError(f"model {self._name}: bad {graph} graph: {error}") from error
            return self._sessions[graph]


@cache
def _runtime() -> Any:
    """ONNX Runtime, silenced."""
    # On import it writes an identity of this machine into the home folder and begins to report
    # events; its function that stops this comes too late.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    # A command's standard error belongs to the command.
    onnxruntime.set_default_logger_severity(3)
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def _new_session(graph: bytes, threads: int | None, is_large: bool) -> Any:
    onnxruntime = _runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Bytes may also look like the runtime's own format, of which nothing was checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    if threads is not None:
        options.intra_op_num_threads = threads
    if is_large:
        # Arenas keep what they had, in pieces that fit no other size.
        options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _begin_anew() -> None:
    for owner in list(_inherited):
        owner.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
