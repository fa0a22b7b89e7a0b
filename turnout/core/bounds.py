"""Types of settings with their bounds: one place, so that a checked file, a flag and a process refuse the same."""

from typing import Annotated

import msgspec

Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
Processes = Annotated[int, msgspec.Meta(ge=1, le=256)]
Share = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
# Both stay inside what 32-bit lengths, gRPC's options and Python buffers can hold.
Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Size = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
# Bytes of many bodies together.
Total = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
