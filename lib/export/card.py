"""What a model file says about itself, and the error of files that cannot be used."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

KEY = "sam_few_labels"  # under which ONNX and safetensors files hold the card
PACKAGE = "sam-few-labels"


class ModelFileError(ValueError):
    """A model file that cannot be written, read or trusted; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What whoever predicts has to know.

    size: side in pixels of the square images that the model was trained on.
    class_names: background first; as many as the logits have channels.
    method: who trained it, such as "KnowSAM"; "" if not said.
    precision: "float32" or "int8".
    project_version: of the project that wrote the file.
    """

    size: int
    class_names: tuple[str, ...]
    method: str = ""
    precision: str = "float32"
    project_version: str = version(PACKAGE)

    def __post_init__(self) -> None:
        """Refuse what no model has."""
        if self.size < 1:
            raise ValueError(f"size must be a number of pixels, not {self.size}")
        if len(self.class_names) < 2:
            raise ValueError(
                f"class_names must name the background and at least one more class, not "
                f"{list(self.class_names)}"
            )

    @property
    def classes(self) -> int:
        """Number of classes, background included."""
        return len(self.class_names)

    def to_metadata(self) -> dict[str, str]:
        """As a file holds it: one entry of JSON."""
        return {KEY: json.dumps(asdict(self))}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: Path) -> "ModelCard":
        """The card in a file's metadata.

        Raises:
            ModelFileError: if there is none, or one that this version does not understand.
        """
        if KEY not in metadata:
            raise ModelFileError(
                f"{path} was not written by this project (it has no entry {KEY!r}), so its image "
                "size and classes are not known: write it with lib.export"
            )
        try:
            values = json.loads(metadata[KEY])
            return cls(**{**values, "class_names": tuple(values["class_names"])})
        except (ValueError, TypeError, KeyError) as error:
            raise ModelFileError(f"{path} describes itself in an unknown way ({error})") from error


def names_of(classes: int, class_names: Sequence[str] | None) -> tuple[str, ...]:
    """`class_names` if they are as many as `classes`, or plain ones for None.

    Raises:
        ValueError: if there are more or fewer.
    """
    if class_names is None:
        plain = ["foreground"] if classes == 2 else [f"class {i}" for i in range(1, classes)]
        return ("background", *plain)
    if len(class_names) != classes:
        raise ValueError(
            f"class_names must be {classes}, the background first, not {list(class_names)}"
        )
    return tuple(class_names)
