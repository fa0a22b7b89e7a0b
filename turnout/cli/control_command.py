"""`turnout control`: the control plane alone, started as `turnout serve` starts it."""

import os
import tempfile
import threading
from typing import Final

import msgspec
import typer

from turnout.cli.output import CommandFailed, ExitCode, Output, OutputOption, print_json
from turnout.cli.serve import (
    ConfigOption,
    ControlPortOption,
    FolderArgument,
    HostOption,
    StateOption,
    UntrustedOption,
    is_loopback,
    settings_of,
)
from turnout.control.config import ControlReady
from turnout.control.main import main as run_control

_STDIN: Final = 0
_OPEN: Final = (
    "--host {host} is not loopback: control has no authentication in this release, and whoever reaches it reads every "
    "model's bytes and loads models; leave --host out, and bring gateways to it by a tunnel (such as ssh -L) or run "
    "them in its network namespace"
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("control")(control)


def control(
    folder: FolderArgument = None,
    config: ConfigOption = None,
    state: StateOption = None,
    host: HostOption = None,
    control_port: ControlPortOption = None,
    output: OutputOption = Output.TEXT,
    *,
    untrusted: UntrustedOption = None,
) -> None:
    """Run the control plane alone; gateways follow it with `turnout gateway --control URL`.

    It listens on loopback only: it has no authentication yet.
    """
    if host is not None and not is_loopback(host):
        raise CommandFailed(_OPEN.format(host=host), ExitCode.USAGE)
    settings = settings_of(config, folder=folder, state=state, control_port=control_port, untrusted=untrusted)
    plane = settings.control_plane()
    if host is not None:
        plane = msgspec.structs.replace(plane, host=host)
    # Control ends with its standard input; here nobody but a signal is to end it.
    endless, _ = os.pipe()
    os.dup2(endless, _STDIN)
    ready, theirs = os.pipe()
    threading.Thread(target=_say_ready, args=(ready, plane.host, output), daemon=True).start()
    with tempfile.TemporaryFile() as file:
        file.write(msgspec.json.encode(plane))
        file.flush()
        run_control(["--config-fd", str(os.dup(file.fileno())), "--ready-fd", str(theirs)])


def _say_ready(descriptor: int, host: str, output: Output) -> None:
    with os.fdopen(descriptor, "rb") as file:
        line = file.readline()
    if not line:
        return
    address = f"{host}:{msgspec.json.decode(line, type=ControlReady).port}"
    if output is Output.JSON:
        print_json({"control": address})
    else:
        typer.echo(f"turnout control ready control={address}")
