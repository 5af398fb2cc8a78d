"""Precision of float32 products. Products of 16-bit numbers are exact in float32."""

import triton.language as tl

FLOAT32 = tl.constexpr("tf32x3")
"""Input precision of products: three TF32 products, about as precise as one in float32.

Plain float32 products don't use matrix units and need more registers than a program has.
"""
