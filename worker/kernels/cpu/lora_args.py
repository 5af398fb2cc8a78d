"""How native code is told of LoRA terms."""

import ctypes
from ctypes import c_int64, c_void_p
from typing import Any

from worker.kernels.interface import LoRAPlan, LoRASite, LoRASites


class Site(ctypes.Structure):
    """Site of lora.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("a", "b")),
        *((name, c_int64) for name in ("a_stride", "b_stride")),
        *((name, c_int64) for name in ("out_features", "offset", "group", "layer")),
    ]


class Pages(ctypes.Structure):
    """Pages of lora.h."""

    _fields_ = [*((name, c_void_p) for name in ("starts", "pages")), ("row_length", c_int64)]


class Plan(ctypes.Structure):
    """Plan of lora.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("token_starts", "tokens", "groups")),
        ("num_adapters", c_int64),
    ]


class LoRAArgs(ctypes.Structure):
    """LoRAArgs of lora.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("sites", "plan", "x", "y")),
        *((name, c_int64) for name in ("num_sites", "in_features", "x_stride", "y_stride")),
    ]


def lora_args(sites: LoRASites) -> tuple[LoRAArgs, int, Any]:
    """What all batches share, its address, and what is to be kept for as long.

    `sites` keeps the weights alive.
    """
    array = (Site * len(sites.sites))(*map(_lora_site, sites.sites))
    args = LoRAArgs(sites=ctypes.addressof(array), num_sites=len(sites.sites))
    return args, ctypes.addressof(args), array


def lora_plan(plan: LoRAPlan) -> tuple[Plan, int, Any]:
    """Whose terms a batch wants, its address, and what is to be kept for as long.

    `plan` keeps its tensors alive.
    """
    array = (Pages * len(plan.pages))(
        *(
            Pages(of_group.starts.data_ptr(), of_group.pages.data_ptr(), of_group.pages.shape[1])
            for of_group in plan.pages
        )
    )
    struct = Plan(
        token_starts=plan.token_starts.data_ptr(),
        tokens=plan.tokens.data_ptr(),
        groups=ctypes.addressof(array),
        num_adapters=len(plan.token_starts) - 1,
    )
    return struct, ctypes.addressof(struct), array


def _lora_site(site: LoRASite) -> Site:
    return Site(
        a=site.a.data_ptr(),
        b=site.b.data_ptr(),
        a_stride=site.a.stride(0),
        b_stride=site.b.stride(0),
        out_features=site.b.shape[2],
        offset=site.offset,
        group=site.group,
        layer=site.layer,
    )
