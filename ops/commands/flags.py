"""Builds command-line flags from the settings classes, so that each setting is described once."""

import inspect
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.text import Text

from ops.help_pages import HELP_ALL, help_all
from ops.local.redis_login import DEFAULT_REDIS_URL, with_login
from shared.errors import SettingsError
from shared.settings import (
    ENV_PREFIX,
    ApiSettings,
    ControlSettings,
    PoolSettings,
    UpSettings,
    WorkerSettings,
    drop_unknown_variables,
    flag_of,
    load_settings,
)

S = TypeVar("S", bound=PoolSettings)
Command = TypeVar("Command", bound=Callable[..., None])
Given = Mapping[str, Any]
"""Flag values by setting name. A flag that isn't given has the value None."""

ModelArgument = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", show_default=False, help="Base model, as with --model."),
]
"""Base model as a positional argument, as in LMDeploy's command line."""

WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        show_default=False,
        help="Number of worker processes. By default one per device.",
    ),
]
DevicesOption = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        show_default=False,
        help="Devices of the workers: all (GPUs), cpu, or a list such as cuda:0,cuda:1. "
        "By default all GPUs, or the CPU if there is none.",
    ),
]

_PANELS: dict[type[PoolSettings], str] = {
    PoolSettings: "Pool",
    ApiSettings: "Front end",
    WorkerSettings: "Worker",
    ControlSettings: "Control",
    UpSettings: "Data",
}


COMMON = {
    *("host", "port", "api_keys", "api_key_file", "allow_anonymous"),
    *("redis_url", "pool", "data_dir", "log_level"),
    *("model", "served_name", "adapters", "adapter_roots", "skip_bad_adapters", "engine"),
    *("device", "quantize", "max_model_len", "kv_cache_mb", "adapter_memory_mb"),
}
"""Settings whose flags `--help` shows for each command. If a command has more than `MAX_SHOWN`
settings, only `--help-all` shows the others.
"""
MAX_SHOWN = 24
OWN_REDIS = "a Redis of its own"
"""Default of `--redis-url` for `lorikeet up`, which starts a Redis if no URL is given."""


def settings_flags(*classes: type[PoolSettings]) -> Callable[[Command], Command]:
    """Return a decorator that replaces a command's `**given` with a flag for each setting."""

    def decorate(command: Command) -> Command:
        parameters = inspect.signature(command).parameters.values()
        own = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
        names = {name for cls in classes for name in cls.model_fields}
        hidden = names - COMMON if len(names) > MAX_SHOWN else set()
        flags = {flag.name: flag for cls in classes for flag in _flags(cls, hidden)}
        if hidden:
            flags[HELP_ALL] = _help_all_flag(len(hidden))
        command.__signature__ = inspect.Signature([*own, *flags.values()])  # type: ignore[attr-defined]
        return command

    return decorate


def _help_all_flag(number: int) -> inspect.Parameter:
    return inspect.Parameter(
        HELP_ALL.lstrip("-").replace("-", "_"),
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[bool, help_all(number)],
        default=False,
    )


def read_settings(cls: type[S], given: Given, **more: Any) -> S:
    """Read the settings of `cls` from flags, the environment and the defaults.

    A flag overrides the environment, and the environment overrides a default. Values in `more`
    override all three.

    Raises:
        SettingsError: a value is invalid. The message names its setting.
    """
    values = {name: given.get(name) for name in cls.model_fields}
    url = values["redis_url"] or redis_from_environment() or DEFAULT_REDIS_URL
    values["redis_url"] = with_login(url)
    return load_settings(cls, **{**values, **more})


def warn_of_unknown_variables() -> None:
    """Print a warning for each LORIKEET_ variable that no command reads, and remove the variable.

    Commands call this before they read settings, because a misspelt variable may be the reason why
    a required setting is missing.

    Raises:
        SettingsError: a setting that protects the server is probably misspelt.
    """
    console = Console(stderr=True)
    for warning in drop_unknown_variables(os.environ):
        console.print(Text(f"lorikeet: {warning}", style="yellow"), soft_wrap=True)


def redis_from_environment() -> str | None:
    """Return the value of LORIKEET_REDIS_URL, else of REDIS_URL, or None if neither is set."""
    return os.environ.get(f"{ENV_PREFIX}REDIS_URL") or os.environ.get("REDIS_URL")


def one_model(argument: str | None, flag: str | None) -> str | None:
    """Return the base model from the argument or `--model`, or None if neither is given.

    Raises:
        SettingsError: both are given and differ.
    """
    if argument and flag and argument != flag:
        raise SettingsError(f"two base models given: {argument} and --model {flag}; give one")
    return argument or flag


def spread_adapters(argv: Sequence[str]) -> list[str]:
    """Rewrite `--adapters a=x b=y` as `--adapters a=x --adapters b=y`, which click can parse.

    All words between `--adapters` and the next flag are adapters, as in LMDeploy's command line.

    Raises:
        SettingsError: a flag directly follows `--adapters`. click would parse this flag as an
            adapter.
    """
    spread: list[str] = []
    in_adapters = False
    for word in argv:
        if word.startswith("-"):
            if spread[-1:] == ["--adapters"]:
                raise SettingsError(f"--adapters: give at least one adapter between it and {word}")
            in_adapters = word == "--adapters"
        elif in_adapters and spread[-1] != "--adapters":
            spread.append("--adapters")
        spread.append(word)
    return spread


def to_argv(given: Given, names: Sequence[str]) -> list[str]:
    """Return command-line flags for those settings in `names` that were given."""
    words: list[str] = []
    for name in names:
        values = given.get(name)
        for value in values if isinstance(values, list | tuple) else [values]:
            if isinstance(value, bool):
                words.append(flag_of(name) if value else _no_flag_of(name))
            elif value is not None:
                words += [flag_of(name), str(value)]
    return words


def to_variables(given: Given, names: Iterable[str]) -> dict[str, str]:
    """Return environment variables for those settings in `names` that were given as flags."""
    variables: dict[str, str] = {}
    for name in names:
        value = given.get(name)
        if value not in (None, [], ()):
            words = value if isinstance(value, list | tuple) else [value]
            variables[f"{ENV_PREFIX}{name.upper()}"] = " ".join(map(str, words))
    return variables


def default_text(field: FieldInfo) -> str:
    """Return a setting's default as a variable's text; empty for False or without a default."""
    if field.is_required() or field.default in (None, (), False):
        return ""
    return "true" if field.default is True else str(field.default)


def _flags(cls: type[PoolSettings], hidden: Collection[str]) -> Iterator[inspect.Parameter]:
    for name, field in cls.model_fields.items():
        option = typer.Option(
            # Typer's syntax for a flag and its opposite.
            f"{flag_of(name)}/{_no_flag_of(name)}" if field.default is True else flag_of(name),
            help=_help(field, _default_shown(cls, name, field)),
            metavar=_metavar(field),
            show_default=False,
            hidden=name in hidden,
            rich_help_panel=_PANELS[_owner(cls, name)],
        )
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[_kind(field) | None, option],
            default=None,
        )


def _kind(field: FieldInfo) -> Any:
    """Return the type to which Typer converts a flag. The settings class validates it later."""
    if field.annotation in (tuple[str, ...], tuple[SecretStr, ...]):
        return list[str]
    return str if field.annotation == SecretStr | None else field.annotation


def _owner(cls: type[PoolSettings], name: str) -> type[PoolSettings]:
    """Return the class that declares the setting `name`: `cls` or one of its base classes."""
    return next(c for c in _PANELS if issubclass(cls, c) and name in c.model_fields)


def _help(field: FieldInfo, default: str) -> str:
    choices = f" One of {', '.join(get_args(field.annotation))}." if _is_choice(field) else ""
    suffix = f" [default: {default}]" if default else ""
    return f"{field.description}{choices}{suffix}"


def _default_shown(cls: type[PoolSettings], name: str, field: FieldInfo) -> str:
    """Return the default that a help page shows. `UpSettings` are those of `lorikeet up` alone."""
    if cls is UpSettings and name == "redis_url":
        return OWN_REDIS
    return default_text(field)


def _metavar(field: FieldInfo) -> str | None:
    """Return the short metavar of a setting's flag, or None if the flag takes no value."""
    if field.annotation is bool:
        return None
    is_number = {int, float} & {field.annotation, *get_args(field.annotation)}
    is_path = Path in (field.annotation, *get_args(field.annotation))
    return "N" if is_number else "NAME" if _is_choice(field) else "PATH" if is_path else "TEXT"


def _no_flag_of(name: str) -> str:
    """Return the `--no-` flag, which turns off a setting that is on by default."""
    return flag_of(name).replace("--", "--no-", 1)


def _is_choice(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is Literal
