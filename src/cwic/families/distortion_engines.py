"""The graphs of what a model's pictures lose, run: a set for each number of scales."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from cwic.engine import Engine
from cwic.errors import ModelError
from cwic.families.distortion import Distortion
from cwic.families.distortion_graphs import distortion_graph, loss_graph, reference_graph
from cwic.families.original import HALO_PX, Original, planes
from cwic.families.protocol import Pixels
from cwic.families.tiling import Rectangle
from cwic.model_file import ModelFile


class DistortionEngines:
    """Made when they are first needed; safe to share among threads.

    Graphs of an engine: `distortion` and `slope`, of what the synthesis takes, `loss`, of pixels,
    and `reference`, of the original.
    """

    def __init__(
        self,
        model: ModelFile,
        distortion: Distortion,
        threads: int | None,
        others: Callable[[], dict[str, bytes]] = dict,
    ):
        """`threads`: of one call; None: all cores. `others`: graphs that an engine has as well."""
        self._model, self._threads, self._others = model, threads, others
        self.distortion = distortion
        self._engines: dict[int, Engine] = {}

    def of(self, window: Rectangle) -> Engine:
        """That for windows of this size, corners on cells.

        Raises:
            ModelError: the synthesis has an operator whose gradient is not known.
        """
        num_scales = self.distortion.num_scales(min(window.height, window.width))
        if num_scales not in self._engines:
            graphs = self._graphs(num_scales)
            made = Engine(replace(self._model, graphs=graphs), self._threads, is_large=True)
            # No lock, which a forked process would inherit: two threads may both make them.
            self._engines.setdefault(num_scales, made)
        return self._engines[num_scales]

    def loss(self, original: Original, shown: Pixels, blocks: Iterable[Rectangle]) -> float:
        """What a picture loses that is shown in place of its original.

        Args:
            original: the picture.
            shown: (H, W, 3).
            blocks: parts of the padded picture that it is taken in, together all of it.

        Returns:
            in the unit of the distortion's weights, a mean over the picture's pixels.
        """
        tiling = original.tiling
        total = 0.0
        for block in blocks:
            seen = tiling.around(block, HALO_PX)
            engine = self.of(seen)
            pixels = planes(tiling.pixels(shown, seen)) - 0.5
            compared = original.compared(engine, seen, self.distortion)
            (value,) = engine.run("loss", pixels, *compared)
            total += original.num_pixels(block) * float(value.item())
        return total / original.num_pixels(tiling.picture)

    def _graphs(self, num_scales: int) -> dict[str, bytes]:
        model = self._model
        try:
            of_model = model.graphs["synthesis"], self.distortion, num_scales
            distortion = distortion_graph(*of_model, with_gradient=False)
            slope = distortion_graph(*of_model)
        except (LookupError, ValueError) as error:
            raise ModelError(
                f"model {model.name}: its synthesis allows no effort: {error}"
            ) from error
        return {
            "distortion": distortion,
            "slope": slope,
            "loss": loss_graph(self.distortion, num_scales),
            "reference": reference_graph(self.distortion, num_scales),
        } | self._others()
