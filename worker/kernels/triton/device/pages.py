"""Computes the addresses of an adapter's rows in the pool.

The addresses are computed from the site table, which `site_table` in `../lora.py` builds.
"""

import triton
import triton.language as tl

SITE_A = tl.constexpr(0)
SITE_B = tl.constexpr(1)
SITE_A_STRIDE = tl.constexpr(2)
SITE_B_STRIDE = tl.constexpr(3)
SITE_OUT = tl.constexpr(4)
SITE_OFFSET = tl.constexpr(5)
SITE_LAYER = tl.constexpr(6)
SITE_FIELDS = tl.constexpr(7)


@triton.jit
def row_pointers(
    sites,
    site,
    ADDRESS: tl.constexpr,
    STRIDE: tl.constexpr,
    like,
    width,
    pages,
    first_page,
    pages_of_layer,
    rows,
    is_row,
    PAGE_ROWS: tl.constexpr,
):
    """Return `[R]` pointers to the starts of an adapter's rows in a site's `a` or `b`.

    Args:
        sites: the site table, `[S, SITE_FIELDS]` int64.
        site: the site's row in the table.
        ADDRESS: SITE_A or SITE_B.
        STRIDE: SITE_A_STRIDE or SITE_B_STRIDE.
        like: a pointer to elements of the storage's dtype.
        width: number of elements in a row.
        pages: indices of pages, ordered by group, layer and adapter.
        first_page: index in `pages` of the adapter's first page for the group's first layer.
        pages_of_layer: number of pages of all adapters in one layer of the group.
        rows: `[R]`, row numbers within the adapter.
        is_row: `[R]`, whether the adapter has the row. Other rows' pointers must not be followed.
        PAGE_ROWS: number of rows in a page.
    """
    place = sites + site * SITE_FIELDS
    storage = tl.load(place + ADDRESS).to(tl.pointer_type(like.dtype.element_ty))
    storage = tl.multiple_of(storage, 16)  # bytes; lets the compiler read rows in vectors
    first_page += tl.load(place + SITE_LAYER) * pages_of_layer
    page = tl.load(pages + first_page + rows // PAGE_ROWS, mask=is_row, other=0)
    page = tl.multiple_of(page.to(tl.int64) * tl.load(place + STRIDE), 8)  # elements
    return storage + page + rows % PAGE_ROWS * width
