"""The table of settings in README.md: `python -m ops.settings_table` writes it anew."""

from pathlib import Path
from typing import get_args

from pydantic.fields import FieldInfo

from ops.commands.flags import default_text
from shared.settings import ENV_PREFIX, ApiSettings, PoolSettings, WorkerSettings, flag_of

README = Path(__file__).parents[1] / "README.md"
_BEGIN, _END = "<!-- settings: made by `python -m ops.settings_table` -->\n", "<!-- /settings -->"
_PROCESSES: dict[type[PoolSettings], str] = {
    PoolSettings: "all",
    ApiSettings: "api",
    WorkerSettings: "worker",
}


def settings_table() -> str:
    """Every setting once, as Markdown."""
    rows = ["| flag | variable | default | of | what |", "| --- | --- | --- | --- | --- |"]
    seen: set[str] = set()
    for cls, process in _PROCESSES.items():
        new = [(name, field) for name, field in cls.model_fields.items() if name not in seen]
        rows += [_row(name, field, process) for name, field in new]
        seen |= {name for name, _ in new}
    return "\n".join(rows) + "\n"


def with_table(readme: str) -> str:
    """`readme` with the table as it is now."""
    before, rest = readme.split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}{settings_table()}{_END}{after}"


def _row(name: str, field: FieldInfo, process: str) -> str:
    default = f"`{text}`" if (text := default_text(field)) else ""
    flag = flag_of(name).replace("--", "--[no-]", 1) if field.default is True else flag_of(name)
    choices = [str(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]
    what = (field.description or "") + (f" ({', '.join(choices)})" if choices else "")
    return f"| `{flag}` | `{ENV_PREFIX}{name.upper()}` | {default} | {process} | {what} |"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
