"""The model.yaml of each version. All three present the same inputs, `label` INT64 and `probabilities` FP64 [-1, 2]."""

from typing import Final

from models.flight_delay.features import NUMBERS, TEXTS

_INPUTS: Final = "\n".join(
    [f"    - {{name: {name}, datatype: BYTES, shape: [-1]}}" for name in TEXTS]
    + [f"    - {{name: {name}, datatype: FP64, shape: [-1]}}" for name in NUMBERS]
)

SCIKIT: Final = """\
runtime: sklearn
artifact: model.skops
golden: golden.json
batching: {max_rows: 256}
"""

ONNX: Final = f"""\
runtime: onnx
artifact: model.onnx
golden: golden.json
batching: {{max_rows: 256}}
cast:
  # The graph computes in FP32; callers send and get FP64 like from the other versions.
  inputs: {{{", ".join(f"{name}: FP64" for name in NUMBERS)}}}
  outputs: {{probabilities: FP64}}
"""

SPARK: Final = f"""\
runtime: jvm
artifact: pipeline
golden: golden.json
batching: {{max_rows: 256}}
signature:
  inputs:
{_INPUTS}
rename:
  outputs: {{prediction: label, probability: probabilities}}
cast:
  outputs: {{label: INT64}}
options: {{kind: spark, heap: 512m}}
"""
