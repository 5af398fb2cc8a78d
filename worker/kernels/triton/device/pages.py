"""How kernels find an adapter's rows in the pool: all that they know of its storage.

`site_table` of `../sites.py` fills the other side of it.
"""

import triton
import triton.language as tl

SITE_A = tl.constexpr(0)
SITE_B = tl.constexpr(1)
SITE_OUT = tl.constexpr(2)
SITE_OFFSET = tl.constexpr(3)
SITE_FIELDS = tl.constexpr(4)


@triton.jit
def row_pointers(
    sites,
    site,
    FIELD: tl.constexpr,
    like,
    width,
    pages,
    first_page,
    rows,
    is_row,
    PAGE_ROWS: tl.constexpr,
):
    """Where rows of an adapter begin in a site's `a` or `b`.

    Args:
        sites: the site table, `[S, SITE_FIELDS]` int64.
        site: the row in it.
        FIELD: SITE_A or SITE_B.
        like: a pointer to elements of the storage's dtype.
        width: elements of a row.
        pages: page numbers.
        first_page: the adapter's first in `pages`.
        rows: `[R]`, counted within the adapter.
        is_row: `[R]`, whether the adapter has it; the pointers of others are never to be read.
        PAGE_ROWS: rows of a page.
    """
    storage = tl.load(sites + site * SITE_FIELDS + FIELD).to(tl.pointer_type(like.dtype.element_ty))
    storage = tl.multiple_of(storage, 16)  # bytes, so that rows are read in vectors
    page = tl.load(pages + first_page + rows // PAGE_ROWS, mask=is_row, other=0)
    return storage + (page.to(tl.int64) * PAGE_ROWS + rows % PAGE_ROWS) * width
