"""Writes the page of model types from the stored outcomes: `python -m ops.lab.generate.models`."""

from ops.lab.generate.models.page import write_page

if __name__ == "__main__":
    write_page()
