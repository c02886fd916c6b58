"""A GPU that is not there: tensors that went to "cuda" are marked, and whatever mixes them with others fails.

Numbers are computed on the CPU. What PyTorch would refuse on a GPU is refused here as well: an operation on tensors
of both devices (but for scalars, copies, and positions in the CPU's memory that pick from a GPU's tensor), and NumPy's
look at a marked tensor. So a tensor that nobody moved fails a test on a machine without a GPU.

Marks belong to storages: views have them too, and so has every result of a marked tensor. Marked storages are kept
alive until the end, so that none can be mistaken for another that has taken its place.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
CROSS_DEVICE = {torch.ops.aten.copy_.default}
PICKING = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default,
           torch.ops.aten._index_put_impl_.default}
JOINING = {torch.ops.aten.cat.default, torch.ops.aten.stack.default}


class Marks:
    """Which storages lie on the pretended GPU."""

    def __init__(self) -> None:
        self._storages: dict[int, Any] = {}

    def __contains__(self, tensor: Tensor) -> bool:
        return not tensor.is_meta and tensor.untyped_storage()._cdata in self._storages

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._storages[storage._cdata] = storage
        return tensor

    def remove(self, tensor: Tensor) -> Tensor:
        self._storages.pop(tensor.untyped_storage()._cdata, None)
        return tensor


class _Devices(TorchFunctionMode):
    """What is asked of a tensor's device, and what moves it there."""

    def __init__(self, marks: Marks) -> None:
        super().__init__()
        self._marks = marks

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:  # made anew by every look
            return CUDA if args[0] in self._marks else func(*args)
        if func is Tensor.numpy and args[0] in self._marks:
            raise TypeError("can't convert cuda tensor to numpy")
        if func is Tensor.cpu:
            return self._move(args[0], CPU)
        if func is Tensor.to and (device := _device_of(args[1:], kwargs)) is not None:
            moved, dtype = self._move(args[0], device), _dtype_of(args[1:], kwargs)
            return moved if dtype is None else moved.to(dtype)
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            return self._marks.add(func(*args, **kwargs | {"device": CPU}))
        return func(*args, **kwargs)

    def _move(self, tensor: Tensor, device: torch.device) -> Tensor:
        if (tensor in self._marks) == (device.type == "cuda"):
            return tensor
        copy = tensor.clone()
        return self._marks.add(copy) if device.type == "cuda" else self._marks.remove(copy)


def _device_of(args: tuple, kwargs: dict) -> torch.device | None:
    asked = kwargs.get("device", args[0] if args else None)
    return torch.device(asked) if isinstance(asked, str | torch.device) else None


class _Operations(TorchDispatchMode):
    """Every operation below autograd and `vmap`: checks its tensors, and marks its results."""

    def __init__(self, marks: Marks) -> None:
        super().__init__()
        self._marks = marks

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        tensors = [*_tensors_in(args), *_tensors_in((kwargs or {}).values())]
        marked = [tensor in self._marks for tensor in tensors]
        if any(marked) and func not in CROSS_DEVICE and not (func in PICKING and marked[0]):
            strangers = [tuple(tensor.shape) for tensor, on in zip(tensors, marked, strict=True)
                         if not on and not _may_meet_a_gpus(tensor, func)]
            if strangers:
                raise RuntimeError(f"Expected all tensors to be on the same device: {func} got {strangers} on the CPU")
        result = func(*args, **(kwargs or {}))
        if any(marked) and func not in CROSS_DEVICE:
            for tensor in _tensors_in((result,)):
                self._marks.add(tensor)
        return result


def _tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield tensors and those in lists and tuples: how operations take and return several."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors_in(value)


def _dtype_of(args: tuple, kwargs: dict) -> torch.dtype | None:
    return next((each for each in (*args, kwargs.get("dtype")) if isinstance(each, torch.dtype)), None)


def _may_meet_a_gpus(tensor: Tensor, func: Callable) -> bool:
    """Whether a tensor of the CPU is a scalar, or how autograd writes a zero: one stretched to a shape."""
    if tensor.dim() == 0:
        return func not in JOINING
    return tensor.numel() > 1 and not any(tensor.stride())


@contextlib.contextmanager
def pretend_gpu() -> Iterator[Marks]:
    """Let "cuda" be a device; the marks tell which tensors lie there."""
    marks = Marks()
    with _Operations(marks), _Devices(marks):
        yield marks
