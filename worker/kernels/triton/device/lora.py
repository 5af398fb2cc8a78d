"""The LoRA term in two kernels: shrink to each adapter's rank, then expand into the output.

Each program computes a tile of tokens that share an adapter, as in Chen et al., Punica:
Multi-Tenant LoRA Serving (arXiv 2310.18547). A program iterates over the pages of its adapter, so
ranks are not padded to the largest rank of the batch.
"""

import triton
import triton.language as tl

from worker.kernels.triton.device.precision import FLOAT32

TILE_SITE = tl.constexpr(0)
TILE_FIRST_TOKEN = tl.constexpr(1)
TILE_NUM_TOKENS = tl.constexpr(2)
TILE_FIRST_PAGE = tl.constexpr(3)
TILE_NUM_PAGES = tl.constexpr(4)
TILE_PAGES_OF_LAYER = tl.constexpr(5)
TILE_PARTIALS = tl.constexpr(6)
TILE_FIELDS = tl.constexpr(7)
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


@triton.jit(
    do_not_specialize=["split_size"],
    do_not_specialize_on_alignment=["tokens", "pages", "tiles", "sites"],
)
def shrink_kernel(
    x,
    x_stride,
    in_features,
    tokens,
    pages,
    tiles,
    sites,
    partials,
    split_size,
    NUM_SPLITS: tl.constexpr,
    PAGE_ROWS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
):
    """Compute `partials[s, t, r] = sum_{i in split s} x[t, i] * a[r, i]` in float32.

    The input features are divided into NUM_SPLITS splits, each with `split_size` partial sums.
    Within a split, a tile's partial sums are stored as `[tokens, rows]`, starting at the tile's
    offset TILE_PARTIALS.

    Grid: tiles, blocks of rows, splits of the inputs.
    """
    tile = tiles + tl.program_id(0) * TILE_FIELDS
    row = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    num_rows = tl.load(tile + TILE_NUM_PAGES).to(tl.int32) * PAGE_ROWS
    if tl.program_id(1) * BLOCK_ROWS >= num_rows:
        return
    is_row = row < num_rows
    site = tl.load(tile + TILE_SITE)
    first_page = tl.load(tile + TILE_FIRST_PAGE)
    of_layer = tl.load(tile + TILE_PAGES_OF_LAYER)
    a_rows = row_pointers(
        sites,
        site,
        SITE_A,
        SITE_A_STRIDE,
        x,
        in_features,
        pages,
        first_page,
        of_layer,
        row,
        is_row,
        PAGE_ROWS,
    )

    index = tl.arange(0, BLOCK_TOKENS)
    is_token = index < tl.load(tile + TILE_NUM_TOKENS)
    token = tl.load(tokens + tl.load(tile + TILE_FIRST_TOKEN) + index, mask=is_token, other=0)
    x_rows = x + token.to(tl.int64) * x_stride

    split = tl.program_id(2)
    sums = tl.zeros((BLOCK_TOKENS, BLOCK_ROWS), dtype=tl.float32)
    for first in range(split * BLOCK_IN, in_features, NUM_SPLITS * BLOCK_IN):
        column = first + tl.arange(0, BLOCK_IN)
        is_column = column < in_features
        inputs = tl.load(
            x_rows[:, None] + column[None, :],
            mask=is_token[:, None] & is_column[None, :],
            other=0.0,
        )
        a = tl.load(
            a_rows[None, :] + column[:, None], mask=is_row[None, :] & is_column[:, None], other=0.0
        )
        sums = tl.dot(inputs, a, acc=sums, input_precision=FLOAT32)

    place = partials + tl.multiple_of(
        split.to(tl.int64) * split_size + tl.load(tile + TILE_PARTIALS), PAGE_ROWS
    )
    tl.store(
        place + index[:, None] * num_rows + row[None, :],
        sums,
        mask=is_token[:, None] & is_row[None, :],
    )


@triton.jit(
    do_not_specialize=["split_size"],
    do_not_specialize_on_alignment=["tokens", "pages", "tiles", "sites"],
)
def expand_kernel(
    y,
    y_stride,
    tokens,
    pages,
    tiles,
    sites,
    partials,
    split_size,
    NUM_SPLITS: tl.constexpr,
    PAGE_ROWS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    IS_ALIGNED: tl.constexpr,
):
    """Compute `y[t, offset + o] += sum_r b[r, o] * round(sum_s partials[s, t, r])`.

    Sums are float32. No two programs write the same element. With IS_ALIGNED, the number of output
    features and the offset of every site must be multiples of 16, as they are in common models.

    Grid: tiles, blocks of output columns.
    """
    tile = tiles + tl.program_id(0) * TILE_FIELDS
    site = tl.load(tile + TILE_SITE)
    out_features = tl.load(sites + site * SITE_FIELDS + SITE_OUT)
    offset = tl.load(sites + site * SITE_FIELDS + SITE_OFFSET)
    if IS_ALIGNED:
        out_features = tl.multiple_of(out_features, 16)
        offset = tl.multiple_of(offset, 16)
    if tl.program_id(1) * BLOCK_OUT >= out_features:
        return
    column = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    is_column = column < out_features
    num_rows = tl.load(tile + TILE_NUM_PAGES).to(tl.int32) * PAGE_ROWS
    first_page = tl.load(tile + TILE_FIRST_PAGE)
    of_layer = tl.load(tile + TILE_PAGES_OF_LAYER)

    index = tl.arange(0, BLOCK_TOKENS)
    is_token = index < tl.load(tile + TILE_NUM_TOKENS)
    token = tl.load(tokens + tl.load(tile + TILE_FIRST_TOKEN) + index, mask=is_token, other=0)

    place = partials + tl.multiple_of(tl.load(tile + TILE_PARTIALS), PAGE_ROWS)
    place = place + index[:, None] * num_rows
    terms = tl.zeros((BLOCK_TOKENS, BLOCK_OUT), dtype=tl.float32)
    for first in range(0, num_rows, BLOCK_ROWS):
        row = first + tl.arange(0, BLOCK_ROWS)
        is_row = row < num_rows
        is_partial = is_token[:, None] & is_row[None, :]
        shrunk = tl.zeros((BLOCK_TOKENS, BLOCK_ROWS), dtype=tl.float32)
        for split in tl.static_range(NUM_SPLITS):
            of_split = tl.multiple_of(split_size.to(tl.int64) * split, PAGE_ROWS)
            shrunk += tl.load(place + (of_split + row)[None, :], mask=is_partial, other=0.0)
        b_rows = row_pointers(
            sites,
            site,
            SITE_B,
            SITE_B_STRIDE,
            y,
            out_features,
            pages,
            first_page,
            of_layer,
            row,
            is_row,
            PAGE_ROWS,
        )
        b = tl.load(
            b_rows[:, None] + column[None, :], mask=is_row[:, None] & is_column[None, :], other=0.0
        )
        terms = tl.dot(shrunk.to(b.dtype), b, acc=terms, input_precision=FLOAT32)

    place = y + token.to(tl.int64)[:, None] * y_stride + (offset + column)[None, :]
    is_own = is_token[:, None] & is_column[None, :]
    before = tl.load(place, mask=is_own, other=0.0)
    tl.store(place, (before.to(tl.float32) + terms).to(before.dtype), mask=is_own)
