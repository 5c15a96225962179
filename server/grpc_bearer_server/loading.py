"""A settings file and the environment -> `Settings`, or one line for each thing that is wrong: which, where, how to mend it."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from .settings import ENV_DELIMITER, ENV_PREFIX, Address, Settings, variable_of

MAX_FILE_BYTES: Final = 1 << 20
LISTS: Final[Mapping[str, Any]] = {"issuers": {}, "rules": {"claims": {}}}
"""The lists of tables, with those in their elements."""


class SettingsError(Exception):
    """The settings cannot be used. `lines`: one for each thing that is wrong."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines: Final = lines


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it is listed. `key` is its place in the TOML file, `default` as TOML writes it."""

    key: str
    variable: str
    default: str
    description: str


def load(path: Path | None) -> Settings:
    """The settings from `path` (None: from the environment alone). Raises `SettingsError`."""
    return parse(None if path is None else read(path), path)


def read(path: Path) -> bytes:
    """The content of a settings file. Raises `SettingsError`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}") from None
    if len(content) > MAX_FILE_BYTES:
        raise SettingsError(f"{path}: is larger than {MAX_FILE_BYTES} bytes; is it a settings file?")
    return content


def parse(content: bytes | None, path: Path | None) -> Settings:
    """The settings from a file's content, `path` only being its name, and from the environment. Raises `SettingsError`."""
    values = {} if content is None else _values(content, path)
    _refuse_unknown_variables()
    try:
        return Settings(**values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        raise SettingsError(*[_line(detail, path) for detail in details]) from None


def _values(content: bytes, path: Path | None) -> dict[str, Any]:
    try:
        values = tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text; TOML has to be") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: is not TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"{path}: is nested too deeply; is it a settings file?") from None
    indexed: dict[str, Any] = _indexed(values, LISTS)
    return indexed


def _indexed(table: Any, lists: Mapping[str, Any]) -> Any:
    """Lists of tables by index, so that a variable of the environment overrides a member of one element and not the list."""
    if not isinstance(table, dict):
        return table
    found = {name: table[name] for name in lists if isinstance(table.get(name), list)}
    return table | {
        name: {str(index): _indexed(element, lists[name]) for index, element in enumerate(elements)}
        for name, elements in found.items()
    }


def _refuse_unknown_variables() -> None:
    """pydantic-settings passes over a variable whose first part it does not know; a misspelt one would be lost."""
    lines = [f"{variable}: no such setting{meant}" for variable in sorted(os.environ) if (meant := _meant(variable))]
    if lines:
        raise SettingsError(*lines)


def _meant(variable: str) -> str:
    """What an unknown variable of ours may have been meant to be, "" for any other."""
    if not variable.upper().startswith(ENV_PREFIX):
        return ""
    first, delimiter, _rest = variable[len(ENV_PREFIX) :].lower().partition(ENV_DELIMITER)
    if delimiter:
        return "" if first in Settings.model_fields else _did_you_mean(first, Settings.model_fields)
    table, underscore, _rest = first.partition("_")
    if underscore and table in Settings.model_fields:  # any other may be somebody else's
        return f"; put two underscores between the parts of its name: {ENV_PREFIX}{table.upper()}{ENV_DELIMITER}..."
    return ""


def _did_you_mean(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"


def _line(detail: ErrorDetails, path: Path | None) -> str:
    """One line of text for one of pydantic's errors. Never the value: it may be a secret."""
    location = [part for part in detail["loc"] if not (isinstance(part, str) and "[" in part)]  # "function-before[...]"
    key = _key(location)
    variable = variable_of(location)
    given = next((name for name in os.environ if name.upper() == variable), None)
    where = given or (key if path is None else f"{path}: {key}")
    match detail["type"]:
        case "extra_forbidden":
            return f"{where}: no such setting{_did_you_mean(str(location[-1]), _siblings(location))}"
        case "missing":
            return f"{where}: is missing; set it there or as {variable}"
        case "value_error":
            return f"{where}: {detail['msg'].removeprefix('Value error, ')}"
        case _:
            return f"{where}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def _key(location: list[int | str]) -> str:
    key = ""
    for part in location:
        name = part if isinstance(part, int) or part.isprintable() else json.dumps(part)  # in a file a name can have any
        key += f"[{name}]" if isinstance(part, int) else f".{name}" if key else str(name)
    return key or "settings"


def _siblings(location: list[int | str]) -> Mapping[str, Any]:
    """The names that could stand at the last place of `location`."""
    model: type[BaseModel] = Settings
    for part in location[:-1]:
        if isinstance(part, str):
            model = _model_of(model.model_fields[part]) or model
    return model.model_fields


def _model_of(info: FieldInfo) -> type[BaseModel] | None:
    for candidate in (info.annotation, *get_args(info.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def listing() -> list[Setting]:
    """Every setting, in the order of the models."""
    return list(_listed(Settings, "", ENV_PREFIX))


def _listed(model: type[BaseModel], key: str, variable: str) -> Iterator[Setting]:
    for name, info in model.model_fields.items():
        inner = _model_of(info)
        many = inner is not None and inner is not info.annotation
        own_key = f"{key}{name}" + ("[0]" if many else "")
        own_variable = f"{variable}{name.upper()}" + (f"{ENV_DELIMITER}0" if many else "")
        if inner is not None:
            yield from _listed(inner, f"{own_key}.", f"{own_variable}{ENV_DELIMITER}")
        elif dataclasses.is_dataclass(info.default) and not isinstance(info.default, Address):
            described = _described(type(info.default))
            for spec in dataclasses.fields(info.default):
                yield Setting(
                    f"{own_key}.{spec.name}",
                    f"{own_variable}{ENV_DELIMITER}{spec.name.upper()}",
                    _toml(getattr(info.default, spec.name)),
                    described,
                )
        else:
            yield Setting(own_key, own_variable, _toml(info.default), info.description or "")


def _described(cls: type[Any]) -> str:
    return f"see grpc_bearer.{cls.__name__}"


def _toml(value: Any) -> str:
    if value is PydanticUndefined:
        return "(required)"
    if value is None:
        return "(none)"
    return json.dumps(value if isinstance(value, bool | int | float | str | tuple) else str(value))
