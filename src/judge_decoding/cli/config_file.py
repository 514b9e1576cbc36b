"""Options from a file (``--config run.yaml``), and the file that repeats a run."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
import yaml

from judge_decoding.cli.command import words_of
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import read_text, write_text
from judge_decoding.judge.files import RUN_FILE
from judge_decoding.spelling import guess

_NOT_KEPT = ("config", "overwrite", "yes", "json", "log_to", "help")
"""Options that are about one invocation and not about what is made."""


def read_config(path: Path, parameters: Sequence[Any]) -> dict[str, Any]:
    """Read options from a YAML or TOML file, by the parameters' names and as the parser takes them.

    The keys are the long names of options (``max-new-tokens``) or names of operands.

    Raises:
        JudgeDecodingError: the file cannot be read, or names an option that the command does not have.
    """
    found = _parsed(path, read_text(path, "the configuration"))
    known = {name.removeprefix("--"): one for one in parameters for name in _names(one)}
    options: dict[str, Any] = {}
    for key, value in found.items():
        name = str(key).replace("_", "-")
        if name not in known or name in _NOT_KEPT[:1]:
            raise JudgeDecodingError(
                f"{path} has {str(key)[:40]!r}, which is not an option of this command{guess(name, list(known))}; "
                "correct the name."
            )
        if value is not None:
            options[known[name].name] = _value(path, name, known[name], value)
    return options


def keep_config(context: typer.Context, folder: Path) -> str:
    """Write the options of this run to `RUN_FILE` in ``folder``, so that it can be repeated; return the file's name."""
    options: dict[str, Any] = {}
    for one in context.command.params:
        source = context.get_parameter_source(one.name or "")
        value = context.params.get(one.name or "")
        if one.name in _NOT_KEPT or source is None or source.name == "DEFAULT" or value in (None, (), []):
            continue
        key = _names(one)[0].removeprefix("--")
        options[key] = [_plain(each) for each in value] if isinstance(value, list | tuple) else _plain(value)
    words = words_of(context) or context.command.name
    text = f"# Repeats this run: judge-decoding {words} --config {RUN_FILE} (run it where the paths are right).\n"
    write_text(folder / RUN_FILE, text + yaml.safe_dump(options, sort_keys=False, allow_unicode=True))
    return RUN_FILE


def _parsed(path: Path, text: str) -> Mapping[str, Any]:
    try:
        if path.suffix == ".toml":
            return tomllib.loads(text)
        found = yaml.safe_load(text)
    except (tomllib.TOMLDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        kind = "TOML" if path.suffix == ".toml" else "YAML"
        raise JudgeDecodingError(f"{path} is not {kind}: {' '.join(str(error).split())[:200]}; correct it.") from error
    if not isinstance(found, dict):
        raise JudgeDecodingError(f"{path} has no options; write them as `name: value`, one per line.")
    return found


def _names(parameter: Any) -> list[str]:  # noqa: ANN401  (typer has its own click, by version)
    """The long names of an option, or the name of an operand."""
    if parameter.param_type_name == "argument":
        return [str(parameter.name).replace("_", "-")]
    return [name for name in parameter.opts if name.startswith("--")]


def _value(path: Path, name: str, parameter: Any, value: Any) -> Any:  # noqa: ANN401
    """A value as the parser takes it: bools for flags, and texts otherwise.

    Raises:
        JudgeDecodingError: it is of another kind than the option's.
    """
    flag = bool(getattr(parameter, "is_flag", False))
    several = bool(getattr(parameter, "multiple", False)) or parameter.nargs != 1
    if flag and isinstance(value, bool):
        return value
    values = value if isinstance(value, list) and several else [value]
    if flag or not all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in values):
        wanted = "true or false" if flag else "a list of texts or numbers" if several else "a text or a number"
        raise JudgeDecodingError(f"{path} has {value!r:.40} for {name}; it must be {wanted}.")
    texts = [str(one) for one in values]
    return texts if several else texts[0]


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int | float | str) else str(value)
