"""Message classes of `proto/inference.proto`, built from its descriptor; their types are in the stub beside this file.

The descriptor pool is private: tritonclient and kserve register other files of package `inference` in protobuf's
default pool, and one process may import them too. Never add this file to the default pool.
"""

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.internal import enum_type_wrapper

from turnout.core.wire.inference_descriptor import SERIALIZED

_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(SERIALIZED)

DESCRIPTOR = _pool.FindFileByName("inference.proto")

for _name, _message in DESCRIPTOR.message_types_by_name.items():
    globals()[_name] = message_factory.GetMessageClass(_message)
for _name, _enum in DESCRIPTOR.enum_types_by_name.items():
    globals()[_name] = enum_type_wrapper.EnumTypeWrapper(_enum)
    globals().update({_value.name: _value.number for _value in _enum.values})
