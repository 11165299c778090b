from captioning.onnx_export.folder import ONNX_DTYPES as ONNX_DTYPES
from captioning.onnx_export.folder import ONNX_FILES as ONNX_FILES
from captioning.onnx_export.folder import write_onnx as write_onnx

__all__: list[str]
