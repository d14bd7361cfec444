"""`python -m release VERSION [--execute]`, which `make release` calls."""

from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from release import checkout
from release.plan import is_version, obstacles

ROOT: Final = Path(__file__).parent.parent

HELP = """Build the wheel of a version and tag it. Without --execute: show what would be done.

The version stands in contracts/version.py alone. CHANGELOG.md has a section of it,
and nothing below Unreleased. All of that is committed.

Ends with 0 if it is done or can be, 1 if something stands against it, 2 for wrong usage.

Examples:

    make release VERSION=0.2.0

    make release VERSION=0.2.0 EXECUTE=1
"""


def run(
    version: Annotated[str, typer.Argument(help="Three numbers, as in 0.2.0.")],
    execute: Annotated[bool, typer.Option("--execute", help="Do it.")] = False,
    root: Annotated[Path, typer.Option(hidden=True)] = ROOT,
) -> None:
    if not is_version(version):
        fail(f"VERSION={version}: name it with three numbers, as in make release VERSION=0.2.0", code=2)
    try:
        if found := obstacles(version, checkout.read_checkout(root)):
            fail(*found)
        checkout.check_contract(root)
        tagged = checkout.commit(root)
        if not execute:
            typer.echo(f"Would build the wheel of {version} into dist/, and tag as v{version}: {tagged}")
            typer.echo(f"Nothing is done yet: make release VERSION={version} EXECUTE=1")
            return
        wheel = checkout.build_wheel(root, version)
        checkout.add_tag(root, version)
    except checkout.ReleaseError as error:
        fail(str(error))
    typer.echo(f"Built {wheel}, and tagged as v{version}: {tagged}")
    typer.echo(f"Publish it: git push REMOTE v{version}")


def fail(*lines: str, code: int = 1) -> NoReturn:
    for line in lines:
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=HELP)(run)
    app(prog_name="python -m release")
