"""How a worker is started; only data."""

from collections.abc import Mapping

import msgspec

START_TIMEOUT_S = 60.0


class WorkerCommand(msgspec.Struct, frozen=True):
    """A worker's command line and what it adds to the environment.

    The supervisor appends `--socket PATH`. Within `start_timeout_s` the worker listens and has loaded its model.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = {}
    start_timeout_s: float = START_TIMEOUT_S
