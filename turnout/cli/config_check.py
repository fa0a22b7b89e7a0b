"""`turnout config check`: tells whether a turnout.yaml, routes.yaml or model.yaml would be taken, before it is used."""

import enum
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final

import typer

from turnout.cli.output import CommandFailed, Output, OutputOption, print_json
from turnout.configuration import read_settings
from turnout.control.publish.routes_file import read_routes
from turnout.control.publish.tree import FolderProblem
from turnout.control.publish.version_folder import MANIFEST, check_manifest
from turnout.core.document import DocumentError


class Kind(enum.StrEnum):
    """What a file is."""

    TURNOUT = "turnout"
    ROUTES = "routes"
    MODEL = "model"


_BY_NAME: Final[Mapping[str, Kind]] = {"routes.yaml": Kind.ROUTES, MANIFEST: Kind.MODEL}
_READERS: Final[Mapping[Kind, Callable[[Path], object]]] = {
    Kind.TURNOUT: read_settings,
    Kind.ROUTES: lambda file: read_routes(file.read_text(encoding="utf-8"), file.name),
    Kind.MODEL: check_manifest,
}
_ROUTES_KEY: Final = "unknown key 'routes'"
_ROUTES_HINT: Final = "; it was read as turnout.yaml, for a file of routes add --kind routes"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    group = typer.Typer(no_args_is_help=True, help="Check configuration files.")
    group.callback()(_group)
    group.command("check")(check)
    app.add_typer(group, name="config")


def check(
    file: Annotated[Path, typer.Argument(help="turnout.yaml, routes.yaml or model.yaml.")],
    kind: Annotated[Kind | None, typer.Option("--kind", help="What the file is; told by its name when absent.")] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Check one file: exit 0 when it would be taken, else 1 with line and reason.

    The files that a model.yaml names must be there. Of routes it tells nothing that only the models can tell: whether
    their versions exist and fit together.
    """
    wanted = kind or _BY_NAME.get(file.name, Kind.TURNOUT)
    try:
        _READERS[wanted](file)
    except (DocumentError, FolderProblem) as error:
        hint = _ROUTES_HINT if wanted is Kind.TURNOUT and f": {_ROUTES_KEY}" in str(error) else ""
        raise CommandFailed(f"{error}{hint}") from error
    except UnicodeDecodeError as error:
        raise CommandFailed(f"{file}: is not UTF-8") from error
    except OSError as error:
        raise CommandFailed(f"{file}: {error.strerror}") from error
    if output is Output.JSON:
        print_json({"file": str(file), "kind": str(wanted), "ok": True})
    else:
        typer.echo(f"{file}: ok")


def _group() -> None:
    """Stand above the one subcommand, so that it keeps its name."""
