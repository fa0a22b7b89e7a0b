"""Regenerates the committed wire files from `proto/inference.proto`: `python -m turnout.core.wire.generate`.

For development only: it needs grpcio-tools and a checkout. Nothing at run time imports it.
"""

import sys
import tempfile
from pathlib import Path
from typing import Final

from google.protobuf import descriptor_pb2
from grpc_tools import protoc  # type: ignore[import-untyped]  # development only, ships no types

HERE: Final = Path(__file__).parent
PROTO: Final = HERE.parents[2] / "proto"
DESCRIPTOR: Final = "inference_descriptor.py"
STUB: Final = "inference_pb2.pyi"

_BYTES_A_LINE: Final = 24
_HEADER: Final = '''"""The serialised descriptor of `proto/inference.proto`. Generated; see `generate.py`."""

from typing import Final

SERIALIZED: Final = bytes.fromhex(
    """
'''
_FOOTER: Final = '    """\n)\n'


def generate(folder: Path) -> None:
    """Write the descriptor module and the type stub into `folder`. Raises RuntimeError when protoc refuses."""
    with tempfile.NamedTemporaryFile() as output:
        arguments = [f"--proto_path={PROTO}", f"--descriptor_set_out={output.name}", f"--pyi_out={folder}"]
        if protoc.main(["protoc", *arguments, "inference.proto"]) != 0:
            raise RuntimeError("protoc refused proto/inference.proto; its message is above")
        (file,) = descriptor_pb2.FileDescriptorSet.FromString(Path(output.name).read_bytes()).file
    serialised = file.SerializeToString(deterministic=True)
    lines = [serialised[at : at + _BYTES_A_LINE].hex(" ") for at in range(0, len(serialised), _BYTES_A_LINE)]
    (folder / DESCRIPTOR).write_text(_HEADER + "".join(f"    {line}\n" for line in lines) + _FOOTER)


if __name__ == "__main__":
    generate(HERE)
    sys.stdout.write(f"wrote {DESCRIPTOR} and {STUB}\n")
