"""`turnout serve`: one machine with everything, from a folder of models. Turns flags into settings, nothing else."""

import contextlib
import enum
import ipaddress
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

import msgspec
import typer

from adapters import catalog
from gateway.config import GatewayConfig
from gateway.parent.failure import CannotStart
from gateway.parent.main import Embedded, Ready
from gateway.parent.main import run as run_parent
from turnout.cli.output import CommandFailed, ExitCode, Output, OutputOption, print_json
from turnout.configuration import Settings, settled
from turnout.control.config import ControlConfig
from turnout.core.document import DocumentError, plain_words

_DEFAULTS: Final = Settings()
_KINDS: Final = get_type_hints(Settings, include_extras=True)


class Edge(enum.StrEnum):
    """What speaks HTTP."""

    UVICORN = "uvicorn"
    ENVOY = "envoy"


def _number(flag: str, key: str, meaning: str) -> Any:
    """Return the option of a number that turnout.yaml calls `key`: what the file refuses, the flag refuses."""
    kind = _KINDS[key]

    def number(text: str) -> Any:
        try:
            return msgspec.convert(text, kind, strict=False)
        except msgspec.ValidationError as error:
            raise CommandFailed(f"{flag} {text}: {plain_words(str(error))}", ExitCode.USAGE) from error

    default = str(getattr(_DEFAULTS, key))
    return typer.Option(flag, parser=number, metavar="NUMBER", help=meaning, show_default=default)


def _port(flag: str, what: str) -> Any:
    key = flag.removeprefix("--").replace("-", "_")
    return _number(flag, key, f"{what}; 0 lets the machine choose.")


def _path(flag: str) -> Callable[[str], Path]:
    def path(text: str) -> Path:
        if not text:  # as a path it would be the current folder
            raise CommandFailed(f"{flag} is empty; name a path", ExitCode.USAGE)
        return Path(text)

    return path


# Nothing is a default here: a flag that is not given leaves the word to turnout.yaml, and then to the settings' own.
FolderArgument = Annotated[
    Path | None,
    typer.Argument(parser=_path("FOLDER"), metavar="FOLDER", help="Folder of models, with an optional routes.yaml."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", parser=_path("--config"), metavar="PATH", help="turnout.yaml; flags go before it."),
]
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        parser=_path("--state"),
        metavar="PATH",
        help="Folder for everything that is kept.",
        show_default=_DEFAULTS.state,
    ),
]
HostOption = Annotated[str | None, typer.Option("--host", help="Address to listen on.", show_default=_DEFAULTS.host)]
ProcessesOption = Annotated[int | None, _number("--processes", "processes", "Gateway processes.")]
HttpPortOption = Annotated[int | None, _port("--http-port", "The HTTP door")]
GrpcPortOption = Annotated[int | None, _port("--grpc-port", "The gRPC door")]
MetricsPortOption = Annotated[int | None, _port("--metrics-port", "For /live, /ready and /metrics")]
ControlPortOption = Annotated[int | None, _port("--control-port", "The control plane")]
DrainOption = Annotated[float | None, _number("--drain-seconds", "drain_seconds", "Time from SIGTERM to the exit.")]
UntrustedOption = Annotated[bool | None, typer.Option("--untrusted", help="Run no code that models carry.")]
AllowEmptyOption = Annotated[bool | None, typer.Option("--allow-empty", help="Be ready without any model.")]
RepositoryOption = Annotated[
    bool | None,
    typer.Option("--repository-control", help="Let callers load and unload models; by default only on loopback."),
]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("serve")(serve)


def serve(
    folder: FolderArgument = None,
    config: ConfigOption = None,
    state: StateOption = None,
    host: HostOption = None,
    processes: ProcessesOption = None,
    http_port: HttpPortOption = None,
    grpc_port: GrpcPortOption = None,
    metrics_port: MetricsPortOption = None,
    control_port: ControlPortOption = None,
    drain_seconds: DrainOption = None,
    edge: Annotated[Edge, typer.Option("--edge", help="envoy is not in this release.")] = Edge.UVICORN,
    output: OutputOption = Output.TEXT,
    *,
    untrusted: UntrustedOption = None,
    allow_empty: AllowEmptyOption = None,
    repository_control: RepositoryOption = None,
) -> None:
    """Serve the models of FOLDER: gateway, control plane and workers on this machine."""
    if edge is Edge.ENVOY:
        raise CommandFailed("--edge envoy is not in this release; use --edge uvicorn", ExitCode.USAGE)
    settings = settings_of(
        config,
        folder=folder,
        state=state,
        host=host,
        processes=processes,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        control_port=control_port,
        drain_seconds=drain_seconds,
        untrusted=untrusted,
        allow_empty=allow_empty,
        repository_control=repository_control,
    )
    if settings.folder is None and not settings.allow_empty:
        raise CommandFailed("name a FOLDER (or folder: in turnout.yaml), or --allow-empty", ExitCode.USAGE)
    control = settings.control_plane()
    run_gateway(settings, Embedded(_told_to(control), control.host, control.port), output)


def _told_to(control: ControlConfig) -> Callable[[int], bytes]:
    """Return what control is told for a port: the first time that the machine is fresh, later that it serves."""
    starts = itertools.count()

    def settings(port: int) -> bytes:
        return msgspec.json.encode(msgspec.structs.replace(control, port=port, fresh=next(starts) == 0))

    return settings


def settings_of(config: Path | None, **flags: object) -> Settings:
    """Return the settings of a file under the flags that were given. Raises CommandFailed.

    No process of ours starts where two installed packages offer the same runtime: which one it is must not be luck.
    """
    given = {
        name: str(value) if isinstance(value, Path) else value for name, value in flags.items() if value is not None
    }
    try:
        catalog.table()
        settings = settled(config, given)
    except (DocumentError, catalog.CatalogError) as error:
        raise CommandFailed(f"cannot start: {error}") from error
    except OSError as error:
        raise CommandFailed(f"cannot start: {config} (--config) cannot be read: {error.strerror}") from error
    if settings.folder is not None and not Path(settings.folder).is_dir():
        raise CommandFailed(f"cannot start: {settings.folder} (FOLDER) is not a folder; name one that holds models")
    if settings.folder is not None:
        _check_listable(settings.folder)
    return settings


def _check_listable(folder: str) -> None:
    try:
        tuple(Path(folder).iterdir())
    except OSError as error:
        raise CommandFailed(
            f"cannot start: {folder} (FOLDER) cannot be listed by user {os.geteuid()}; "
            "give it the right to read and search"
        ) from error


def run_gateway(settings: Settings, control: Embedded | str, output: Output) -> None:
    """Run the parent to its end and exit with its status."""
    config: GatewayConfig = settings.gateway(loopback=is_loopback(settings.host))
    try:
        status = run_parent(config, Path(settings.state), control, _ready_printer(output))
    except CannotStart as error:
        if str(error):
            raise CommandFailed(f"cannot start: {error}") from error
        if output is Output.JSON:
            print_json({"error": "cannot start: control ended as it started; it says why on stderr"})
        raise typer.Exit(ExitCode.FAILED) from error
    raise typer.Exit(status)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a listener on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ready_printer(output: Output) -> Callable[[Ready], None]:
    def say(ready: Ready) -> None:
        with contextlib.suppress(BrokenPipeError):
            if output is Output.JSON:
                print_json(msgspec.to_builtins(ready))
            else:
                fields = " ".join(f"{name}={value}" for name, value in msgspec.to_builtins(ready).items())
                sys.stdout.write(f"turnout ready {fields}\n")
            sys.stdout.flush()

    return say
