"""Writes what the pages say of settings, commands and decisions, from what they are: `make schemas`.

A page keeps what people wrote. What lies between two marks is written here, and a test fails while it is out
of date. A command without a page gets one.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.core import TyperArgument, TyperCommand, TyperOption
from typer.main import get_command

from worker import cli
from worker.settings import Settings

DOCS: Final = Path(__file__).parent
PREFIX: Final = "ORDER_WORKER_"

_BLOCK: Final = re.compile(r"(<!-- generated: ([a-z ]+) -->\n).*?(\n<!-- end -->)", re.DOTALL)
_MARKUP: Final = re.compile(r"\[/?(?:bold|cyan)\]")
_SECTIONS: Final[Mapping[str, str]] = {
    "Servers": r"kafka_bootstrap_servers|database_.*|(group|instance)_id",
    "Topics": r".*_topic",
    "Batches": r"batch_.*|message_.*",
    "Time limits": r"(session|transaction|request|statement|lock|shutdown|retry|stall|refused)_.*",
    "Login to Kafka, and TLS": r"kafka_(security|sasl|ssl)_.*",
    "HTTP and log": r"(http|log)_.*",
    "More": r".*",
}
"""Title to the names of its settings: each setting stands in the first section that has its name."""


@dataclass(frozen=True)
class Command:
    """A command as it is called, `dead-letters list`, and what typer knows of it."""

    name: str
    made: TyperCommand

    @property
    def slug(self) -> str:
        return self.name.replace(" ", "-")

    @property
    def summary(self) -> str:
        """The first sentence of its help."""
        first = (self.made.help or "").partition("\n\n")[0].replace("\n", " ")
        return re.split(r"(?<=[.:]) ", first)[0].rstrip(".:")


def commands() -> list[Command]:
    """All of them, in the order of `--help`."""
    found = []
    for name, command in get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        within = getattr(command, "commands", None)
        found += [Command(f"{name} {sub}", made) for sub, made in within.items()] if within else []
        found += [] if within else [Command(name, command)]
    return found


def pages() -> dict[Path, str]:
    """Each page that has something generated, and its whole text as it has to be."""
    known = commands()
    blocks = {
        DOCS / "configuration.md": {"settings": _settings()},
        DOCS / "commands" / "README.md": {"commands": _command_table(known)},
        DOCS / "decisions" / "README.md": {"decisions": _decision_table()},
        **{DOCS / "commands" / f"{one.slug}.md": {"reference": _reference(one)} for one in known},
    }
    titles = {DOCS / "commands" / f"{one.slug}.md": one.name for one in known}
    return {path: _filled(_page(path, titles), of_page) for path, of_page in blocks.items()}


def _page(path: Path, titles: Mapping[Path, str]) -> str:
    if path.exists():
        return path.read_text(encoding="utf-8")
    return f"# {titles[path]}\n\n## Usage\n\n<!-- generated: reference -->\n\n<!-- end -->\n"


def _filled(text: str, blocks: Mapping[str, str]) -> str:
    return _BLOCK.sub(lambda match: f"{match[1]}\n{blocks[match[2]]}\n{match[3]}", text)


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Words that a table takes as they are."""
    return re.sub(r"([|*<])", r"\\\1", " ".join(text.split()))


def _settings() -> str:
    left = dict(Settings.model_fields)
    parts = []
    for title, names in _SECTIONS.items():
        mine = {name: left.pop(name) for name in list(left) if re.fullmatch(names, name)}
        if mine:
            rows = (_setting(name, field) for name, field in mine.items())
            parts.append(f"### {title}\n\n" + _table(("variable", "default", "meaning"), rows))
    return "\n\n".join(parts)


def _setting(name: str, field: FieldInfo) -> tuple[str, str, str]:
    meaning, values = _cell(field.description or ""), _values(field)
    shown = f"{meaning} ({values})" if values else meaning
    return f"`{PREFIX}{name.upper()}`", _default(field.default), shown


def _default(value: Any) -> str:
    if value in (None, "", PydanticUndefined):
        return ""
    shown = value.get_secret_value() if isinstance(value, SecretStr) else value
    return f"`{shown:g}`" if isinstance(shown, float) else f"`{shown}`"


def _values(field: FieldInfo) -> str:
    """Those of a choice, or the bounds of a number."""
    if choice := [value for value in get_args(field.annotation) if isinstance(value, str)]:
        return ", ".join(f"`{value}`" for value in choice)
    bounds = {
        bound: getattr(item, bound)
        for item in field.metadata
        for bound in ("ge", "gt", "le", "lt")
        if hasattr(item, bound)
    }
    low = f"from {bounds['ge']:,}" if "ge" in bounds else f"above {bounds['gt']:g}" if "gt" in bounds else ""
    high = f"to {bounds['le']:,}" if "le" in bounds else ""
    return " ".join(part for part in (low, high) if part)


def _command_table(known: Sequence[Command]) -> str:
    rows = ((f"[`{one.name}`]({one.slug}.md)", _cell(one.summary)) for one in known)
    return _table(("command", "does"), rows)


def _reference(command: Command) -> str:
    """How it is called: usage, help, arguments and options, examples."""
    made = command.made
    arguments = [one for one in made.params if isinstance(one, TyperArgument)]
    options = [one for one in made.params if isinstance(one, TyperOption)]
    usage = " ".join(["order-worker", command.name, "[OPTIONS]", *map(_called, arguments)])
    parts = [f"```text\n{usage}\n```", _paragraphs(made.help or "")]
    if arguments:
        parts.append(_table(("argument", "meaning"), (_argument(one) for one in arguments)))
    if options:
        parts.append(_table(("option", "default", "meaning"), (_option(one) for one in options)))
    if made.epilog:
        examples = [
            line for line in _MARKUP.sub("", made.epilog).split("\n\n") if line.startswith("order-worker")
        ]
        parts.append("Examples:\n\n```sh\n" + "\n".join(examples) + "\n```")
    if (DOCS / "json" / f"{command.slug}.json").exists():
        parts.append(f"`--json` prints [this document](../json/{command.slug}.json).")
    return "\n\n".join(parts)


def _paragraphs(text: str) -> str:
    return "\n\n".join(_cell(paragraph) for paragraph in text.split("\n\n"))


def _called(argument: TyperArgument) -> str:
    name = argument.metavar or str(argument.name).upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _argument(argument: TyperArgument) -> tuple[str, str]:
    return f"`{_called(argument)}`", _cell(argument.help or "")


def _option(option: TyperOption) -> tuple[str, str, str]:
    value = "" if option.is_flag else f" {_metavar(option)}"
    names = ", ".join(f"`{name}{value}`" for name in [*option.opts, *option.secondary_opts])
    shown = None if option.is_flag and not option.secondary_opts else option.default
    default = "" if shown in (None, False, ()) else _shown_default(option)
    return names, default, _cell(option.help or "")


def _metavar(option: TyperOption) -> str:
    choices = getattr(option.type, "choices", None)
    if option.metavar or not choices:
        return option.metavar or option.type.name.upper().removesuffix(" RANGE")
    return "/".join(str(getattr(choice, "value", choice)) for choice in choices)


def _shown_default(option: TyperOption) -> str:
    if option.is_flag:
        return f"`{(option.opts if option.default else option.secondary_opts)[0]}`"
    return f"`{option.default:g}`" if isinstance(option.default, float) else f"`{option.default}`"


def _decision_table() -> str:
    return _table(("record", "status"), map(_decision, sorted((DOCS / "decisions").glob("[0-9]*.md"))))


def _decision(path: Path) -> tuple[str, str]:
    text = path.read_text(encoding="utf-8")
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    status = re.search(r"^Date: (.+)$", text, re.MULTILINE)
    return f"[{_cell(title[1] if title else path.stem)}]({path.name})", _cell(status[1] if status else "")


def main() -> None:
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
