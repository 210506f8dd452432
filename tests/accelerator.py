"""An accelerator that isn't there: tensors that say they are on one, and compute on the CPU.

They may be mixed with tensors on the CPU only as PyTorch allows it for real ones. So what works
here never forgets to bring a tensor to the device, or back; and it has the same results to the bit.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "lazy"  # a device that every build of PyTorch knows the name of, and has no kernels for
aten = torch.ops.aten
PRODUCTS = (aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.matmul, aten.linear)


class OnAccelerator(torch.Tensor):
    """A tensor on the accelerator; `inner` has its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        device = torch.device(NAME, 0)
        size, kind = inner.size(), inner.dtype
        tensor = torch.Tensor._make_wrapper_subclass(cls, size, dtype=kind, device=device, **layout)
        tensor.inner = inner
        return tensor

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})

    def __repr__(self):
        return f"on the accelerator: {self.inner}"

    def tolist(self):
        return self.inner.tolist()

    def numpy(self):
        raise TypeError("can't convert a tensor on an accelerator to numpy; use Tensor.cpu()")


class Accelerator(TorchDispatchMode):
    """While it is entered, `device="lazy"` works. It counts matrix products, here and elsewhere."""

    def __init__(self):
        super().__init__()
        self.n_products = {True: 0, False: 0}  # on the accelerator, on the CPU

    def __enter__(self):
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(..., device=NAME)` comes here too
        return super().__enter__()

    def __exit__(self, *error):
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in PRODUCTS:
            self.n_products[any(map(is_there, tree_leaves(args)))] += 1
        return compute(function, args, kwargs or {})


def is_there(value):
    return isinstance(value, OnAccelerator)


def compute(function, args, kwargs):
    """What a function of PyTorch gives, there if it was asked to or if its inputs are."""
    check(function, args, kwargs)
    there = [value for value in tree_leaves((args, kwargs)) if is_there(value)]
    target = device_asked_for(function, args, kwargs)
    stays_there = bool(there) if target is None else target.type == NAME

    def on_cpu(value):
        if isinstance(value, torch.device):
            return torch.device("cpu")
        return value.inner if is_there(value) else value

    result = function(*tree_map(on_cpu, args), **tree_map(on_cpu, kwargs))
    if not stays_there:
        # What was there already must not share its memory with what is here now.
        return result.clone() if there and isinstance(result, torch.Tensor) else result
    if function is aten.copy_.default and not is_there(args[0]):
        return result
    if not there and result is args[0]:
        result = result.clone()
    # A function that changes its input returns that very input.
    known = {id(value.inner): value for value in there}

    def outer(value):
        if not isinstance(value, torch.Tensor):
            return value
        return known[id(value)] if id(value) in known else OnAccelerator(value)

    return tree_map(outer, result)


def device_asked_for(function, args, kwargs):
    """The device that a function is to bring its result to, if it says so."""
    if function is aten.to.other:
        return args[1].device
    devices = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.device)]
    return devices[0] if devices else None


def check(function, args, kwargs):
    """Raises the error that a real accelerator would: for tensors of two devices."""
    if function.overloadpacket in (aten.copy_, aten._to_copy, aten.to):
        return
    values = (args, kwargs)
    if function.overloadpacket in (
        aten.index,
        aten.index_put,
        aten.index_put_,
        aten._index_put_impl_,
    ):
        # What is on the accelerator may be indexed from the CPU, but not the other way round.
        if not is_there(args[0]) and any(map(is_there, tree_leaves(args[1]))):
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the tensor"
            )
        values = (args[0], *args[2:])
    tensors = [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
    # A single number may come from the CPU.
    sized = [tensor for tensor in tensors if is_there(tensor) or tensor.dim()]
    if len({is_there(tensor) for tensor in sized}) == 2:
        raise RuntimeError(f"{function} expects all tensors to be on the same device, got two")
