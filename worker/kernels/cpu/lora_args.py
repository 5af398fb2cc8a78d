"""ctypes mirror of `src/lora/lora.h`. Types and order of the fields must match."""

import ctypes
from ctypes import c_int64, c_void_p
from dataclasses import dataclass
from typing import Any

from worker.kernels.interface import LoRAPlan, LoRASite, LoRASites, Prepared


class Site(ctypes.Structure):
    """ctypes mirror of `Site` in lora.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("a", "b")),
        *((name, c_int64) for name in ("a_stride", "b_stride")),
        *((name, c_int64) for name in ("out_features", "offset", "group", "layer")),
    ]


class Pages(ctypes.Structure):
    """ctypes mirror of `Pages` in lora.h."""

    _fields_ = [*((name, c_void_p) for name in ("starts", "pages")), ("row_length", c_int64)]


class Plan(ctypes.Structure):
    """ctypes mirror of `Plan` in lora.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("token_starts", "tokens", "groups")),
        ("num_adapters", c_int64),
    ]


class LoRAArgs(ctypes.Structure):
    """ctypes mirror of `LoRAArgs` in lora.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("sites", "plan", "x", "y")),
        *((name, c_int64) for name in ("num_sites", "in_features", "x_stride", "y_stride")),
    ]


@dataclass(frozen=True, slots=True)
class NativeSites(Prepared):
    """LoRA arguments of sibling linears. Fields that are the same in all batches are set."""

    args: LoRAArgs
    address: int
    """Address of `args`."""
    sites: Any
    """Array of `Site` structs that `args` points to."""


@dataclass(frozen=True, slots=True)
class NativePlan(Prepared):
    """C struct of a `LoRAPlan`."""

    plan: Plan
    address: int
    """Address of `plan`."""
    pages: Any
    """Array of `Pages` structs that `plan` points to."""


def prepare_sites(sites: LoRASites) -> NativeSites:
    """Return the LoRA arguments of `sites`. The sites' weights must outlive the arguments."""
    array = (Site * len(sites.sites))(*map(_lora_site, sites.sites))
    args = LoRAArgs(sites=ctypes.addressof(array), num_sites=len(sites.sites))
    return NativeSites(args, ctypes.addressof(args), array)


def prepare_plan(plan: LoRAPlan) -> NativePlan:
    """Return the C struct of `plan`. The plan's tensors must outlive the struct."""
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
    return NativePlan(struct, ctypes.addressof(struct), array)


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
