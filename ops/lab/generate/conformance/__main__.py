"""Writes the page: `python -m ops.lab.generate.conformance`."""

from ops.lab.generate.conformance.page import PAGE, page

PAGE.write_text(page())
