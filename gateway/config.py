"""Settings of the data plane: decoded once at the edge, frozen, passed down as small values. Reads nothing itself."""

import msgspec

from gateway.limits import Limits
from turnout.core.bounds import Port, Processes, Seconds, Share


class GatewayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One gateway machine.

    Port 0 lets the machine choose. `drain_seconds` is the whole time from SIGTERM until the exit. `access_log_path`
    is a file that the access log is appended to, standard error when empty; `access_log_sample` is in parts of 10,000
    of the answers that are no errors. `switch_interval_s` is how long a Python thread may hold the interpreter while
    another waits: a model that is mostly Python delays the doors by as much.
    """

    host: str = "127.0.0.1"
    http_port: Port = 8080
    grpc_port: Port = 8081
    metrics_port: Port = 8082
    processes: Processes = 1
    drain_seconds: Seconds = 10.0
    allow_empty: bool = False
    repository_control: bool = False
    access_log_path: str = ""
    access_log_sample: Share = 100
    switch_interval_s: Seconds = 0.0005
    limits: Limits = Limits()


class ProcessConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the parent tells one gateway process: its slot, what it inherits, where its files are.

    `http_fd` is the listening socket, `control_fd` the socket to the parent. `replaces` a process that served: it
    opens its doors only when it is warm.
    """

    gateway: GatewayConfig
    slot: int
    http_fd: int
    control_fd: int
    grpc_host: str
    grpc_port: int
    metrics: str
    scratch: str
    replaces: bool
