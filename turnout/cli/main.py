"""The `turnout` command: a table of commands, each in a module that is imported only when it is called."""

import importlib
import itertools
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Final, Protocol, runtime_checkable

import typer

from turnout.cli.output import CommandFailed, ExitCode, print_json

COMMANDS: Final = {
    "serve": ("turnout.cli.serve", "Serve the models of a folder: gateway, control plane and workers."),
    "gateway": ("turnout.cli.gateway_command", "Run the data plane alone, or adopt another control plane."),
    "control": ("turnout.cli.control_command", "Run the control plane alone."),
    "route": ("turnout.cli.route", "Show routes: weights, bucket ranges, shadows, what waits."),
    "config": ("turnout.cli.config_check", "Check turnout.yaml, routes.yaml and model.yaml."),
    "predict": ("turnout.cli.predict", "Send rows of a file to a route and print its answers."),
}


@runtime_checkable
class _UsageError(Protocol):
    """What typer raises for a wrong command line."""

    def format_message(self) -> str:
        """Return what is wrong."""


class _CommandModule(Protocol):
    """A module of a command."""

    def register(self, app: typer.Typer) -> None:
        """Add the command to the app."""


def build(wanted: str | None) -> typer.Typer:
    """Return the app; only the `wanted` command is loaded, of the others it knows name and summary."""
    app = typer.Typer(
        name="turnout",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Serve predictions of many model versions behind one door, and decide how much traffic each deserves.",
    )
    app.callback()(_root)
    for name, (module, summary) in COMMANDS.items():
        if name == wanted:
            command: _CommandModule = importlib.import_module(module)
            command.register(app)
        else:
            app.command(name, help=summary)(_not_loaded)
    return app


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--output=json" in arguments or ("--output", "json") in itertools.pairwise(arguments)
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    app = build(wanted)
    try:
        # In standalone mode typer prints usage errors itself, in a box of several lines.
        sys.exit(app(arguments, prog_name="turnout", standalone_mode=False) or ExitCode.DONE)
    except CommandFailed as error:
        _fail(error.message, error.code, as_json=as_json)
    except typer.Abort:
        _fail("aborted", ExitCode.FAILED, as_json=as_json)
    except Exception as error:
        code = getattr(error, "exit_code", None)  # typer's usage errors carry one
        if code is None:
            raise
        message = " ".join(error.format_message().split()) if isinstance(error, _UsageError) else str(error)
        if not message:  # a group without a command: typer has printed its help
            sys.exit(code)
        known = f"turnout {wanted}" if wanted in COMMANDS else "turnout"
        _fail(f"{message.rstrip('.')}; see {known} --help", code, as_json=as_json)


def _fail(message: str, code: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"error": message})
    else:
        typer.echo(f"turnout: {message}", err=True)
    sys.exit(code)


def _show_version(asked: bool) -> None:  # noqa: FBT001  typer calls it so
    if asked:
        typer.echo(f"turnout {version('turnout')}")
        raise typer.Exit


def _root(
    *, _version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False
) -> None:
    """Parse what comes before the command."""


def _not_loaded() -> None:
    """Stand for a command that was not asked for."""


if __name__ == "__main__":
    run()
