"""Precision of float32 products.

Products of 16-bit numbers need no precision setting, because they are exact in float32.
"""

import triton.language as tl

FLOAT32 = tl.constexpr("tf32x3")
"""Value of `input_precision` that computes a float32 product as three TF32 products.

The result is about as precise as a float32 product. Plain float32 products don't use matrix units
and need more registers than a program has.
"""
