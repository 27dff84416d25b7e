"""An exported model in ONNX Runtime."""

from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from lib.export.card import ModelCard, ModelFileError

ERRORS_ONLY = 4  # fatal ones: what goes wrong is raised, and need not be printed as well


class OnnxModel:
    """A file of `lib.export.export_onnx`: call it with images as one calls a network."""

    def __init__(self, path: Path | str, *, threads: int | None = None):
        """Load it for the CPU.

        Args:
            path: of the ONNX file.
            threads: of one prediction; None takes one a core.

        Raises:
            ModelFileError: if there is no such file, or it is no ONNX model of this project.
        """
        path = Path(path)
        if not path.is_file():
            raise ModelFileError(f"{path} does not exist or is no file")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.intra_op_num_threads = threads or 0
        try:
            session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors have no common class of their own
            raise ModelFileError(
                f"{path} is no whole ONNX model ({error}): export or copy it again"
            ) from error
        self.card = ModelCard.from_metadata(session.get_modelmeta().custom_metadata_map, path)
        self.path, self._session = path, session

    def __call__(self, images: Tensor) -> Tensor:
        """Logits `B x C x size x size` of images `B x 3 x size x size` in [0, 1], on the CPU.

        Raises:
            ValueError: images of another shape.
            ModelFileError: if ONNX Runtime cannot run the model on them.
        """
        size = self.card.size
        if images.ndim != 4 or images.shape[1:] != (3, size, size):
            raise ValueError(
                f"images must be B x 3 x {size} x {size} for {self.path.name}, not "
                f"{' x '.join(map(str, images.shape))}: resize them"
            )
        values = images.detach().to("cpu", torch.float32).contiguous().numpy()
        try:
            (logits,) = self._session.run(["logits"], {"image": values})
        except Exception as error:  # as above
            raise ModelFileError(f"{self.path} cannot be run ({error})") from error
        return torch.from_numpy(logits)
