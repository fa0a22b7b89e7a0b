"""The wire messages: committed as generated, in a pool of their own, with the protocol's numbers."""

import subprocess
import sys

import pytest

from turnout.core.wire import generate, inference_pb2


@pytest.mark.parametrize("name", [generate.DESCRIPTOR, generate.STUB])
def test_committed_files_are_what_the_generator_writes(name, tmp_path):
    """Generating again changes no byte."""
    generate.generate(tmp_path)
    assert (tmp_path / name).read_bytes() == (generate.HERE / name).read_bytes()


THEIRS = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
file = descriptor_pb2.FileDescriptorProto(name="inference.proto", package="inference", syntax="proto3")
file.message_type.add(name="ModelInferRequest").field.add(name="other", number=1, type=3, label=1)
descriptor_pool.Default().Add(file)
found = descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")
theirs = message_factory.GetMessageClass(found)
"""
OURS = "from turnout.core.wire import inference_pb2\n"
USE = """
print(theirs(other=7).SerializeToString(), inference_pb2.ModelInferRequest(model_name="x").SerializeToString())
"""


@pytest.mark.parametrize("program", [THEIRS + OURS + USE, OURS + THEIRS + USE], ids=["theirs first", "ours first"])
def test_another_package_inference_lives_in_the_same_process(program):
    """A client library's conflicting file in the default pool, before or after ours, disturbs neither."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "b'\\x08\\x07' b'\\n\\x01x'\n", done.stderr


@pytest.mark.parametrize(
    ("message", "field", "number"),
    [
        ("InferParameter", "double_param", 4),
        ("InferParameter", "uint64_param", 5),
        ("ModelMetadataResponse", "properties", 6),
        ("ModelStreamInferResponse", "error_message", 1),
        ("ModelStreamInferResponse", "infer_response", 2),
        ("RepositoryModelLoadRequest", "model_name", 2),
        ("RepositoryModelUnloadRequest", "model_name", 2),
        ("ModelRepositoryParameter", "bytes_param", 4),
        ("ModelConfig", "backend", 17),
        ("ModelOutput", "dims", 3),
        ("ModelInput", "dims", 4),
    ],
)
def test_numbers_that_copies_differ_in_are_the_official_ones(message, field, number):
    """Where other servers' copies went another way, the wire follows the specification and Triton."""
    assert inference_pb2.DESCRIPTOR.message_types_by_name[message].fields_by_name[field].number == number


def test_enum_values_are_module_names_too():
    """Enums read as in any generated module."""
    assert inference_pb2.TYPE_BF16 == inference_pb2.DataType.Value("TYPE_BF16") == 14
