"""The JSON Schemas of what --json prints, for scripts in any language.

`python -m worker.cli.documents` writes them into docs/json; a test fails while they are out of date.
"""

import json
from dataclasses import dataclass, make_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, get_type_hints

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from db.reconciliation.restoration import DifferingRow, Shortage
from worker import DOCUMENT_VERSION
from worker.errors import ErrorCode
from worker.observability.log_line import LogLine
from worker.operations.check.verdicts import CheckFinding, Summary
from worker.operations.dead_letters.letter import Group
from worker.operations.dead_letters.read import Shown
from worker.operations.dead_letters.settle import SettlePlan
from worker.operations.explain.explanation import Explanation
from worker.operations.lag.measure import GroupLag
from worker.operations.orders.listing import ListedOrder, ListSummary
from worker.operations.orders.rehearse import ReopenRehearsal
from worker.operations.orders.reopen import ReopenReport
from worker.operations.prune.terminal import PruneReport
from worker.operations.reconcile.discrepancies import Discrepancy
from worker.operations.reconcile.reconcile import Reconciliation
from worker.operations.redrive.redrive import RedriveRehearsal, RedriveReport
from worker.operations.replay.from_group_terminal import FromGroupReport
from worker.operations.replay.terminal import ReplayReport
from worker.operations.republish.republish import Preview, Republished
from worker.operations.restore.terminal import RestoreReport
from worker.operations.setup.catalog_report import CatalogReport, Imported
from worker.operations.skip.plan import SkipPlan

FOLDER: Final = Path(__file__).parent.parent.parent / "docs" / "json"


@dataclass
class Failure:
    code: ErrorCode
    message: str
    next: str | None
    traceback: str = ""


@dataclass
class Error:
    error: Failure


@dataclass
class ErrorOnStandardOutput:
    error: str


@dataclass
class Checked:
    findings: list[CheckFinding]
    summary: Summary


@dataclass
class Found:
    left: int
    found: list[Discrepancy]


@dataclass
class Source:
    topic: str
    partition: int
    offset: int


@dataclass
class Fault:
    code: str
    path: str
    message: str


@dataclass
class Exported:
    """Of `key` and `key_base64` there is one, and so of `value`."""

    place: str
    source: Source | None
    error: Fault
    failed_at: datetime | None
    cut_from_bytes: int | None
    headers: list[dict[str, str | None]]
    key: str | None = None
    key_base64: str = ""
    value: str | None = None
    value_base64: str = ""


@dataclass
class ListedOrders:
    orders: list[ListedOrder]
    summary: ListSummary


def _as_object(rows: type[Any], *more: tuple[str, type]) -> Any:
    """Rows that are printed with the names of their fields."""
    made = make_dataclass(rows.__name__, [*get_type_hints(rows).items(), *more])
    # It is in the schema's names. From Python 3.12 on it would be the caller's, which may be __main__.
    made.__module__ = "types"
    return made


_RESTORED: Final = make_dataclass(
    "Restored",
    [
        ("shortages", list[_as_object(Shortage, ("lacks", int))]),  # type: ignore[misc]
        ("differing", list[_as_object(DifferingRow)]),  # type: ignore[misc]
    ],
)
"""What stands in the place of the report's own members of these names."""

_IMPORTED: Final = make_dataclass(
    "ImportedTables",
    [("tables", list[_as_object(Imported, ("unchanged", int))])],  # type: ignore[misc]
)
"""As that."""

ONE_OF: Final[dict[str, tuple[Any, ...]]] = {
    "catalog import": (CatalogReport,),
    "check": (Checked,),
    "dead-letters export": (Exported,),
    "dead-letters list": (list[Group],),
    "dead-letters redrive": (RedriveRehearsal, RedriveReport),
    "dead-letters settle": (SettlePlan,),
    "dead-letters show": (Shown,),
    "error": (Error,),
    "explain": (Explanation,),
    "lag": (GroupLag,),
    "ledger prune": (PruneReport,),
    "ledger restore": (RestoreReport,),
    "log line": (LogLine,),
    "orders list": (ListedOrders,),
    "orders reopen": (ReopenRehearsal, ReopenReport),
    "reconcile": (Reconciliation, ErrorOnStandardOutput),
    "replay": (ReplayReport, FromGroupReport, ErrorOnStandardOutput),
    "republish": (Preview, Republished),
    "skip": (SkipPlan,),
}
"""Command to what it prints: one of these. `log line`: each line of a log in JSON."""

_MORE: Final[dict[Any, Any]] = {
    CatalogReport: _IMPORTED,
    Reconciliation: Found,
    RestoreReport: _RESTORED,
}
"""Members that are written beside those of the report, or in their place."""


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def documents() -> dict[str, str]:
    """File name to JSON Schema. Members may be added; `version` grows when one goes or changes."""
    return {
        f"{command.replace(' ', '-')}.json": json.dumps(_schema(command), indent=2, ensure_ascii=False) + "\n"
        for command in ONE_OF
    }


def _schema(command: str) -> dict[str, Any]:
    kinds = ONE_OF[command]
    asked = [*kinds, *(_MORE[kind] for kind in kinds if kind in _MORE)]
    found, shared = TypeAdapter.json_schemas(
        [(str(kind), "serialization", TypeAdapter(kind)) for kind in asked], schema_generator=_Untitled
    )
    plain = {kind: found[str(kind), "serialization"] for kind in asked}
    written = [_versioned(plain, kind, shared["$defs"]) for kind in kinds]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:order-worker:{command.replace(' ', '-')}",
        **(written[0] if len(written) == 1 else {"anyOf": written}),
        "$defs": shared["$defs"],
    }


def _versioned(plain: dict[Any, Any], kind: Any, shared: dict[str, Any]) -> dict[str, Any]:
    """The document of this kind, with `version`; the entries of a list have it each."""
    schema = plain[kind]
    if schema.get("type") == "array":
        return {**schema, "items": _with_version(_resolved(schema["items"], shared))}
    schema = _resolved(schema, shared)
    if kind in _MORE:
        schema = _joined(schema, _resolved(plain[_MORE[kind]], shared))
    return _with_version(schema)


def _resolved(schema: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = shared[schema["$ref"].rpartition("/")[2]]
    return found


def _joined(schema: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    required = list(dict.fromkeys([*schema.get("required", []), *more["required"]]))
    return {**schema, "properties": {**schema["properties"], **more["properties"]}, "required": required}


def _with_version(schema: dict[str, Any]) -> dict[str, Any]:
    return _joined(schema, {"properties": {"version": {"const": DOCUMENT_VERSION}}, "required": ["version"]})


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
