"""An ONNX graph compiled by OpenVINO for every batch size it will meet: one thread, precision always said."""

from collections.abc import Mapping, Sequence
from typing import Any

import openvino

from models.runtime import Floats


def on_one_thread(precision: str = "f32") -> dict[str, str]:
    """Settings of whatever is compiled here."""
    return {
        "INFERENCE_PRECISION_HINT": precision,  # the default of newer CPUs is bf16, which nobody asked for
        "INFERENCE_NUM_THREADS": "1",
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
        # Else whoever asks is nailed to the first core while it computes, and so is every other process here.
        "ENABLE_CPU_PINNING": "NO",
    }


class Compiled:
    """Named arrays in, named arrays out, all batch first. Outputs are copies, the caller's for good."""

    def __init__(self, graph: bytes, sizes: Sequence[int], precision: str = "f32") -> None:
        core = openvino.Core()
        self._requests: dict[int, Any] = {}
        self._inputs: dict[int, dict[str, Floats]] = {}
        self._outputs: dict[int, dict[str, Floats]] = {}
        self._asks: list[str] = []
        for size in sizes:
            model = core.read_model(graph, b"")
            model.reshape({port.get_any_name(): _sized(port, size) for port in model.inputs})
            self._asks = [port.get_any_name() for port in model.inputs]
            request = core.compile_model(model, "CPU", on_one_thread(precision)).create_infer_request()
            self._requests[size] = request
            self._inputs[size], self._outputs[size] = (
                {port.get_any_name(): request.get_tensor(port).data for port in ports}
                for ports in (request.model_inputs, request.model_outputs)
            )

    @property
    def sizes(self) -> list[int]:
        return sorted(self._requests)

    @property
    def asks(self) -> list[str]:
        """The names of its inputs."""
        return self._asks

    def __call__(self, inputs: Mapping[str, Floats]) -> dict[str, Floats]:
        size = len(next(iter(inputs.values())))
        # Written and read in place: handing arrays over costs OpenVINO's Python half as much as a step of one session.
        for name, place in self._inputs[size].items():
            if inputs[name].shape != place.shape:
                raise ValueError(f"{name} is {list(inputs[name].shape)}, not {list(place.shape)}")
            place[...] = inputs[name]
        self._requests[size].infer()
        return {name: place.copy() for name, place in self._outputs[size].items()}


def _sized(port: Any, size: int) -> list[int]:
    return [size, *(dimension.get_length() for dimension in list(port.get_partial_shape())[1:])]


def best_precision() -> str:
    """For convolutions, bf16 where this CPU computes in it. Recurrent graphs stay in f32: states add errors up."""
    return "bf16" if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
