"""Writes the page of model types from the stored outcomes: `python -m ops.generate.models`."""

from ops.generate.models.page import write_page

if __name__ == "__main__":
    write_page()
