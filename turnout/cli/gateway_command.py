"""`turnout gateway`: the data plane alone, following a control plane elsewhere; and `adopt`, to follow another one."""

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from turnout.cli.output import CONTROL_URL, CommandFailed, ExitCode, Output, OutputOption, print_json
from turnout.cli.serve import (
    AllowEmptyOption,
    ConfigOption,
    DrainOption,
    GrpcPortOption,
    HostOption,
    HttpPortOption,
    MetricsPortOption,
    ProcessesOption,
    RepositoryOption,
    StateOption,
    run_gateway,
    settings_of,
)

# A gateway that waits for control's next snapshot hears within one long poll.
_ADOPTED_WITHIN_S: Final = 40.0
_LOOK_S: Final = 0.1


def register(app: typer.Typer) -> None:
    """Add the command and its subcommand to the app."""
    group = typer.Typer(help="Run the data plane alone, or adopt another control plane.")
    group.callback(invoke_without_command=True)(gateway)
    group.command("adopt")(adopt)
    app.add_typer(group, name="gateway")


def gateway(
    context: typer.Context,
    control: Annotated[str, typer.Option("--control", help="URL of the control plane.")] = CONTROL_URL,
    config: ConfigOption = None,
    state: StateOption = None,
    host: HostOption = None,
    processes: ProcessesOption = None,
    http_port: HttpPortOption = None,
    grpc_port: GrpcPortOption = None,
    metrics_port: MetricsPortOption = None,
    drain_seconds: DrainOption = None,
    output: OutputOption = Output.TEXT,
    *,
    allow_empty: AllowEmptyOption = None,
    repository_control: RepositoryOption = None,
) -> None:
    """Run the data plane alone: gateway processes and workers, following the control plane at a URL."""
    if context.invoked_subcommand is not None:
        return
    if not control.startswith(("http://", "https://")):
        raise CommandFailed(f"--control {control} is not a URL", ExitCode.USAGE)
    settings = settings_of(
        config,
        state=state,
        host=host,
        processes=processes,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        drain_seconds=drain_seconds,
        allow_empty=allow_empty,
        repository_control=repository_control,
    )
    run_gateway(settings, control, output)


def adopt(
    state: Annotated[Path, typer.Option("--state", help="The gateway's STATE folder.")] = Path("./.turnout"),
    output: OutputOption = Output.TEXT,
) -> None:
    """Have the gateway of this STATE take control's snapshot, though it is of another registry or older.

    A running gateway does so within seconds; one that is down, at its next start.
    """
    if not state.is_dir():
        raise CommandFailed(f"{state} is no state folder; name it with --state")
    wish = state / "adopt"
    wish.touch()
    if not _is_running(state):
        _say(output, "the gateway adopts control's snapshot at its next start", adopted=False)
        return
    give_up_s = time.monotonic() + _ADOPTED_WITHIN_S
    while wish.exists():
        if time.monotonic() > give_up_s:
            raise CommandFailed("the gateway has not adopted anything yet: is control up? It will as soon as it is")
        time.sleep(_LOOK_S)
    _say(output, "adopted", adopted=True)


def _is_running(state: Path) -> bool:
    try:
        owner = (state / "lock").read_text(encoding="ascii").strip()
    except OSError:
        return False
    return owner.isdigit() and Path(f"/proc/{owner}").exists()


def _say(output: Output, text: str, *, adopted: bool) -> None:
    if output is Output.JSON:
        print_json({"adopted": adopted})
    else:
        typer.echo(text)
