"""The factory of the workers as bytes, whatever it holds: any model of the program, on any device.

A tensor on a GPU is pickled as one on the CPU: the process that reads it may have no GPU, or
another one.  Where it goes there is the worker's to say.
"""

import io
from collections.abc import Callable
from typing import Any

import ray.cloudpickle
from torch import Tensor

from s3search.errors import InvalidConfig


def packed(make_worker: Callable[[], object]) -> bytes:
    """The pickled factory; raises `InvalidConfig` for what cannot travel."""
    content = io.BytesIO()
    pickler: Any = _CpuPickler  # Ray's has no types
    try:
        pickler(content).dump(make_worker)
    except Exception as error:  # a pickle can fail in any way, with the type of its choice
        raise InvalidConfig(
            f"workers: an object cannot travel to other processes ({type(error).__name__}: "
            f"{error}); name a function that makes it there ('package.module:function'), or use "
            'workers="inline"'
        ) from error
    return content.getvalue()


class _CpuPickler(ray.cloudpickle.CloudPickler):
    def reducer_override(self, thing: Any) -> Any:
        """As pickle asks: how to make ``thing`` again."""
        if isinstance(thing, Tensor) and type(thing) is Tensor and thing.device.type != "cpu":
            kept: Any = thing.detach().cpu().requires_grad_(thing.requires_grad)
            return kept.__reduce_ex__(self.proto)
        usual: Any = super()
        return usual.reducer_override(thing)
