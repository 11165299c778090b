"""Write captioners as ONNX files, which programs without PyTorch can run, and check them with onnxruntime."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "folder": ["ONNX_DTYPES", "ONNX_FILES", "write_onnx"],
    },
)
