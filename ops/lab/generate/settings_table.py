"""Generates the page of settings in ops/docs: `python -m ops.lab.generate.settings_table`."""

from pathlib import Path
from typing import get_args

from pydantic.fields import FieldInfo

from ops.commands.flags import default_text
from shared.settings import (
    ENV_PREFIX,
    ApiSettings,
    ControlSettings,
    PoolSettings,
    UpSettings,
    WorkerSettings,
    flag_of,
)

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
_HEAD = """# Settings

Each setting is a flag and an environment variable. `lorikeet up` takes all flags, the other
commands those of their process. A flag overrides its variable, and a variable overrides the
default. `REDIS_URL` is read if `LORIKEET_REDIS_URL` isn't set. Invalid values prevent the start.
Unknown `LORIKEET_` variables are ignored, with a warning that suggests the probable name. The
variable of a switch is `true` or `false`. `lorikeet COMMAND --help-all` lists the same settings.

`python -m ops.lab.generate.settings_table` generates this page.

"""
_PROCESSES: dict[type[PoolSettings], str] = {
    ApiSettings: "api",
    WorkerSettings: "worker",
    ControlSettings: "control",
    UpSettings: "up",
}


def page() -> str:
    """Return the page as Markdown.

    Settings that all processes have appear once. Others appear once for each process that has
    them.
    """
    rows = [
        "| flag | variable | default | process | description |",
        "| --- | --- | --- | --- | --- |",
    ]
    rows += [_row(name, field, "all") for name, field in PoolSettings.model_fields.items()]
    for cls, process in _PROCESSES.items():
        own = cls.model_fields.keys() - PoolSettings.model_fields.keys()
        rows += [_row(name, f, process) for name, f in cls.model_fields.items() if name in own]
    return _HEAD + "\n".join(rows) + "\n"


def _row(name: str, field: FieldInfo, process: str) -> str:
    default = f"`{text}`" if (text := default_text(field)) else ""
    flag = flag_of(name).replace("--", "--[no-]", 1) if field.default is True else flag_of(name)
    choices = [str(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]
    description = (field.description or "") + (f" One of {', '.join(choices)}." if choices else "")
    return f"| `{flag}` | `{ENV_PREFIX}{name.upper()}` | {default} | {process} | {description} |"


if __name__ == "__main__":
    PAGE.write_text(page())
