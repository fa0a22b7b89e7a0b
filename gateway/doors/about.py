"""What both doors say about the server, and what they refuse in repository calls. No door-specific form here."""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Final

from turnout.core.errors import Forbidden, InvalidInput

SERVER_NAME: Final = "turnout"
SERVER_VERSION: Final = version("turnout")
EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)


def check_repository_call(*, allowed: bool, parameters: Iterable[str]) -> None:
    """Raise Forbidden unless callers may load and unload, InvalidInput for parameters with code or settings.

    A model is always read from the server's own folder. `unload_dependents` is taken: nothing depends on a model.
    """
    if not allowed:
        raise Forbidden("loading and unloading models is off; start the server with --repository-control")
    for name in parameters:
        if name.startswith("file:"):
            raise InvalidInput(f"parameter {name[:64]}: files are not taken, models are read from the server's folder")
        if name != "unload_dependents":
            raise InvalidInput(f"parameter {name[:64]}: is not taken, a model's settings are in its model.yaml")
