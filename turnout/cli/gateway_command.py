"""`turnout gateway`: the data plane alone, following a control plane elsewhere.

And what an operator asks of a running one: `adopt`, to follow another control plane, and `restart`.
"""

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from gateway.parent.wish import Wish
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
    group = typer.Typer(help="Run the data plane alone; replace its processes; adopt another control plane.")
    group.callback(invoke_without_command=True)(gateway)
    group.command("adopt")(adopt)
    group.command("restart")(restart)
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


def restart(
    state: Annotated[Path, typer.Option("--state", help="The gateway's STATE folder.")] = Path("./.turnout"),
    timeout: Annotated[float, typer.Option("--timeout", min=1.0, help="Seconds to wait for the end of it.")] = 600.0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Replace all gateway processes of a running machine, one after the other, without losing a request.

    Each new process loads everything and opens its doors before an old one leaves. Settings stay as they are. If a
    new process cannot serve what the old one serves, it is given up and the old ones go on.
    """
    if not _is_running(state):
        raise CommandFailed(f"no gateway runs with state folder {state}; name another with --state")
    wish = Wish(state / "restart")
    try:
        wish.make()
    except OSError as error:
        raise CommandFailed(f"{state / 'restart'} cannot be written: {error.strerror or error}") from error
    give_up_s = time.monotonic() + timeout
    while (refusal := wish.outcome()) is None:
        if not _is_running(state):
            raise CommandFailed("the gateway has ended")
        if time.monotonic() > give_up_s:
            raise CommandFailed(f"not all gateway processes are replaced after {timeout:g} s; it goes on")
        time.sleep(_LOOK_S)
    if refusal:
        raise CommandFailed(f"replacing was given up: {refusal}")
    if output is Output.JSON:
        print_json({"restarted": True})
    else:
        typer.echo("all gateway processes are replaced")


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
