"""What the control process is told at its start, and how. Reads nothing itself.

The process is started as `python -m turnout.control.main --config-fd N --ready-fd M`:

- it reads one JSON document (`ControlConfig`) from the inherited descriptor N until its end;
- when it listens, it writes one line `{"port": PORT}` to the inherited descriptor M and closes it;
- stdout stays empty, the log goes to stderr;
- it ends when stdin, a pipe that the starter keeps open, reaches its end, or on SIGTERM. SIGINT is ignored: a
  Ctrl-C reaches the whole process group, and the starter decides when control goes.

`STATE/control/` holds the records, `STATE/blobs/sha256/` the bytes (`turnout.core.snapshot.blob_path`).
"""

import msgspec

from turnout.core.bounds import Port, Seconds


class ControlConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of one control process.

    `state` is the STATE folder; `folder` the FOLDER of models and `routes.yaml`, None for none. `untrusted` marks
    every imported version as one whose code must not run. `fresh`: the whole machine starts, so no gateway serves yet
    and routes wait until versions have been tried; without it, control alone starts again and the routes of before go
    on. A gateway counts as live for `gateway_live_s` after its last report. The first routes wait at most
    `first_routes_s` for versions to be tried; a later change is refused when its versions are not ready
    `ready_within_s` after it was asked. A file that did not change for `quiet_s`, and that nobody writes, is at rest;
    what keeps changing is waited for at most `settle_s`. `routes.yaml` is looked at every `watch_s`.
    """

    state: str
    folder: str | None = None
    host: str = "127.0.0.1"
    port: Port = 8090
    untrusted: bool = False
    fresh: bool = False
    gateway_live_s: Seconds = 15.0
    first_routes_s: Seconds = 30.0
    ready_within_s: Seconds = 300.0
    settle_s: Seconds = 10.0
    quiet_s: Seconds = 1.0
    watch_s: Seconds = 0.2


class ControlReady(msgspec.Struct, frozen=True):
    """The line on the ready descriptor: the port that control listens on."""

    port: int
