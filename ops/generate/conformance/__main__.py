"""Writes the page: `python -m ops.generate.conformance`."""

from ops.generate.conformance.page import PAGE, page

PAGE.write_text(page())
