from ops.lab.generate.bounds_table import PAGE, page


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run `python -m ops.lab.generate.bounds_table`"
