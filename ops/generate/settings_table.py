"""The page of settings in ops/docs: `python -m ops.generate.settings_table` writes it anew."""

from pathlib import Path
from typing import get_args

from pydantic.fields import FieldInfo

from ops.commands.flags import default_text
from shared.settings import ENV_PREFIX, ApiSettings, PoolSettings, WorkerSettings, flag_of

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
_HEAD = """# Settings

Each setting is a flag of `lorikeet up` and of the processes that it is of, and a variable. A flag
wins over its variable, a variable over the default. `REDIS_URL` is read too, behind
`LORIKEET_REDIS_URL`. Unknown `LORIKEET_` variables and bad values stop the start. The variable of a
switch is `true` or `false`. `lorikeet COMMAND --help` says the same.

`python -m ops.generate.settings_table` makes this page.

"""
_PROCESSES: dict[type[PoolSettings], str] = {
    PoolSettings: "all",
    ApiSettings: "api",
    WorkerSettings: "worker",
}


def page() -> str:
    """Every setting once, as Markdown."""
    rows = ["| flag | variable | default | of | what |", "| --- | --- | --- | --- | --- |"]
    seen: set[str] = set()
    for cls, process in _PROCESSES.items():
        new = [(name, field) for name, field in cls.model_fields.items() if name not in seen]
        rows += [_row(name, field, process) for name, field in new]
        seen |= {name for name, _ in new}
    return _HEAD + "\n".join(rows) + "\n"


def _row(name: str, field: FieldInfo, process: str) -> str:
    default = f"`{text}`" if (text := default_text(field)) else ""
    flag = flag_of(name).replace("--", "--[no-]", 1) if field.default is True else flag_of(name)
    choices = [str(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]
    what = (field.description or "") + (f" ({', '.join(choices)})" if choices else "")
    return f"| `{flag}` | `{ENV_PREFIX}{name.upper()}` | {default} | {process} | {what} |"


if __name__ == "__main__":
    PAGE.write_text(page())
