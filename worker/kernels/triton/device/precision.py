"""How products of float32 are computed; those of 16-bit numbers are exact in any case."""

import triton.language as tl

FLOAT32 = tl.constexpr("tf32x3")
"""Three products of TF32 parts, about as exact as float32's own, which wouldn't use matrix units
and would need more registers than there are."""
