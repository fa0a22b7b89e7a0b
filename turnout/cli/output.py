"""What every command says and how: prose for people, or one JSON document on stdout with `--output json`."""

import enum
import json
from typing import Annotated, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


class ExitCode(enum.IntEnum):
    """Exit statuses of all commands (DESIGN 4)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3


class Output(enum.StrEnum):
    """The form of what a command prints."""

    TEXT = "text"
    JSON = "json"


class CommandFailed(Exception):
    """A command ends without what it was asked for; the text is one line for the operator."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


OutputOption = Annotated[
    Output, typer.Option("--output", help="What to print: text, or one JSON document on stdout, also on error.")
]
ControlUrlOption = Annotated[
    str, typer.Option("--url", envvar="TURNOUT_URL", help="Where control listens: port 8090, serve's --control-port.")
]
DoorUrlOption = Annotated[
    str,
    typer.Option(
        "--url", envvar="TURNOUT_PREDICT_URL", help="Where the HTTP door listens: port 8080, serve's --http-port."
    ),
]
# Of the doors' answers (DESIGN 6): who asked, which version answered, which fallback if one did.
HEADER_REQUEST_ID: Final = "turnout-request-id"
HEADER_VERSION: Final = "turnout-version"
HEADER_FALLBACK: Final = "turnout-fallback"
DOOR_URL: Final = "http://127.0.0.1:8080"
CONTROL_URL: Final = "http://127.0.0.1:8090"


def print_json(document: object) -> None:
    """Print a JSON document and nothing else."""
    typer.echo(json.dumps(document, ensure_ascii=False))


def print_rows(columns: list[str], rows: list[list[str]]) -> None:
    """Print a table; colour and width follow NO_COLOR and the terminal."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
