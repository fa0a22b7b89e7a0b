"""Converts the fitted scikit-learn pipeline to ONNX: text stays text, numbers become FP32."""

import skl2onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.pipeline import Pipeline

from models.flight_delay.features import NUMBERS, TEXTS

# The number of the ONNX operator set that is written.
OPSET = 18


def export(model: Pipeline) -> bytes:
    """Return the model as ONNX bytes, with outputs `label` and `probabilities`.

    A SimpleImputer on text does not convert, and double inputs fail in ONNX Runtime: hence neither is used.
    """
    kinds = [(name, StringTensorType([None, 1])) for name in TEXTS]
    kinds += [(name, FloatTensorType([None, 1])) for name in NUMBERS]
    converted = skl2onnx.to_onnx(model, initial_types=kinds, options={"zipmap": False}, target_opset=OPSET)
    return bytes(converted.SerializeToString())
