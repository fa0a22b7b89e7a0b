"""`turnout.yaml`: its keys with what they mean, and how it joins the command line: flag over file over default.

Keys are called like the flags of `turnout serve`, with `_` for `-`. Paths in the file are relative to the file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from gateway.config import GatewayConfig
from gateway.limits import Limits
from turnout.control.config import ControlConfig
from turnout.core.bounds import Count, Port, Processes, Seconds, Share, Size, Total
from turnout.core.document import DocumentError, parse
from turnout.core.manifest import About

MAX_BYTES: Final = 1 << 20
Place = Annotated[str, msgspec.Meta(min_length=1)]
_GATEWAY: Final = GatewayConfig()
_LIMITS: Final = Limits()
_CONTROL: Final = ControlConfig(state="")
_PATHS: Final = ("folder", "state", "access_log_path")


class LimitsKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`limits`: what the doors take before they refuse."""

    body_bytes: Annotated[Size, About(description="An HTTP body as it travels.")] = _LIMITS.body_bytes
    unpacked_bytes: Annotated[Size, About(description="An HTTP body after gzip or deflate.")] = _LIMITS.unpacked_bytes
    message_bytes: Annotated[Size, About(description="A gRPC message.")] = _LIMITS.message_bytes
    header_bytes: Annotated[Size, About(description="An HTTP request line with its headers, and gRPC metadata.")] = (
        _LIMITS.header_bytes
    )
    nesting: Annotated[Count, About(description="Depth of JSON.")] = _LIMITS.nesting
    held_requests: Annotated[Count, About(description="Requests that wait or run in one process.")] = (
        _LIMITS.held_requests
    )
    held_rows: Annotated[Count, About(description="Rows of those.")] = _LIMITS.held_rows
    held_bytes: Annotated[
        Total, About(description="Bytes of those, of HTTP bodies being received, and of gRPC answers not yet taken.")
    ] = _LIMITS.held_bytes
    connections: Annotated[
        Count, About(description="HTTP connections of one process, and as many gRPC ones; fewer if files are scarce.")
    ] = _LIMITS.connections
    connection_calls: Annotated[Count, About(description="Calls at once on one gRPC connection.")] = (
        _LIMITS.connection_calls
    )
    stream_requests: Annotated[Count, About(description="Requests under way on one gRPC stream.")] = (
        _LIMITS.stream_requests
    )
    header_s: Annotated[Seconds, About(description="Seconds that a caller may take for its headers.")] = (
        _LIMITS.header_s
    )
    body_s: Annotated[Seconds, About(description="Seconds that a caller may take for its body.")] = _LIMITS.body_s
    write_s: Annotated[Seconds, About(description="Seconds that a caller may take to accept its answer.")] = (
        _LIMITS.write_s
    )
    linger_s: Annotated[
        Seconds, About(description="Seconds for which the rest of a refused body is read, so that the refusal is seen.")
    ] = _LIMITS.linger_s


class ControlKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`control`: how patient the control plane is."""

    gateway_live_s: Annotated[
        Seconds, About(description="Seconds after its last report for which a gateway is waited for.")
    ] = _CONTROL.gateway_live_s
    first_routes_s: Annotated[
        Seconds, About(description="Seconds that a start waits for versions before it publishes routes.")
    ] = _CONTROL.first_routes_s
    ready_within_s: Annotated[
        Seconds, About(description="Seconds after which a change is refused whose versions are not ready.")
    ] = _CONTROL.ready_within_s
    settle_s: Annotated[Seconds, About(description="Seconds for which files that keep changing are waited for.")] = (
        _CONTROL.settle_s
    )
    quiet_s: Annotated[
        Seconds, About(description="Seconds without a change after which a file in FOLDER is at rest.")
    ] = _CONTROL.quiet_s
    watch_s: Annotated[Seconds, About(description="Seconds between two looks at routes.yaml.")] = _CONTROL.watch_s


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`turnout.yaml`."""

    folder: Annotated[Place | None, About(description="FOLDER of models and routes.yaml.")] = None
    state: Annotated[Place, About(description="Folder for everything that is kept.")] = "./.turnout"
    host: Annotated[str, About(description="Address of the doors and of the metrics port.")] = _GATEWAY.host
    processes: Annotated[Processes, About(description="Gateway processes.")] = _GATEWAY.processes
    http_port: Annotated[Port, About(description="Port of the HTTP door; 0 lets the machine choose.")] = (
        _GATEWAY.http_port
    )
    grpc_port: Annotated[Port, About(description="Port of the gRPC door; 0 likewise.")] = _GATEWAY.grpc_port
    metrics_port: Annotated[Port, About(description="Port of /live, /ready and /metrics; 0 likewise.")] = (
        _GATEWAY.metrics_port
    )
    control_port: Annotated[Port, About(description="Port of the control plane on loopback; 0 likewise.")] = (
        _CONTROL.port
    )
    untrusted: Annotated[bool, About(description="Run no code that models carry.")] = _CONTROL.untrusted
    allow_empty: Annotated[bool, About(description="Be ready without any model.")] = _GATEWAY.allow_empty
    repository_control: Annotated[
        bool | None,
        About(description="Let callers load and unload models; only where `host` is loopback when absent."),
    ] = None
    drain_seconds: Annotated[Seconds, About(description="Seconds from SIGTERM to the exit.")] = _GATEWAY.drain_seconds
    access_log_path: Annotated[
        Place | None, About(description="File that the access log is appended to; standard error when absent.")
    ] = None
    access_log_sample: Annotated[
        Share, About(description="Requests without error that the access log shows, in parts of 10,000.")
    ] = _GATEWAY.access_log_sample
    switch_interval_s: Annotated[
        Seconds, About(description="Seconds that a Python thread may hold the interpreter while another waits.")
    ] = _GATEWAY.switch_interval_s
    limits: Annotated[LimitsKeys, About(description="What the doors take before they refuse.")] = LimitsKeys()
    control: Annotated[ControlKeys, About(description="How patient the control plane is.")] = ControlKeys()

    def gateway(self, *, loopback: bool) -> GatewayConfig:
        """Return the data plane's settings; `loopback` tells whether only this machine can reach `host`."""
        asked = loopback if self.repository_control is None else self.repository_control
        return GatewayConfig(
            host=self.host,
            http_port=self.http_port,
            grpc_port=self.grpc_port,
            metrics_port=self.metrics_port,
            processes=self.processes,
            drain_seconds=self.drain_seconds,
            allow_empty=self.allow_empty,
            repository_control=asked,
            access_log_path=str(Path(self.access_log_path).absolute()) if self.access_log_path else "",
            access_log_sample=self.access_log_sample,
            switch_interval_s=self.switch_interval_s,
            limits=Limits(**msgspec.structs.asdict(self.limits)),
        )

    def control_plane(self) -> ControlConfig:
        """Return the control plane's settings."""
        return ControlConfig(
            state=str(Path(self.state).absolute()),
            folder=str(Path(self.folder).absolute()) if self.folder is not None else None,
            port=self.control_port,
            untrusted=self.untrusted,
            **msgspec.structs.asdict(self.control),
        )


def read_settings(path: Path) -> Settings:
    """Read `turnout.yaml`. Raises DocumentError with line and reason, and OSError."""
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DocumentError(str(path), 1, f"is over {MAX_BYTES:,} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise DocumentError(str(path), 1, "is not UTF-8") from error
    document = parse(text, str(path))
    settings = document.decode(Settings)
    said = document.data if isinstance(document.data, dict) else {}
    places = {key: str(path.parent / said[key]) for key in _PATHS if said.get(key) is not None}
    return msgspec.structs.replace(settings, **places)


def settled(file: Path | None, given: Mapping[str, Any]) -> Settings:
    """Return the settings of a file, or the defaults, under what was `given` on the command line. Raises as above."""
    return msgspec.structs.replace(read_settings(file) if file else Settings(), **given)
