from ops.settings_table import README, with_table


def test_the_readmes_table_of_settings_is_current() -> None:
    readme = README.read_text()
    assert readme == with_table(readme), "run `python -m ops.settings_table`"
