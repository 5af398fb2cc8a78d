from ops.lab.generate.settings_table import PAGE, page


def test_the_page_of_settings_is_current() -> None:
    assert PAGE.read_text() == page(), "run `python -m ops.lab.generate.settings_table`"
