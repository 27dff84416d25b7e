"""Scores of a network on chosen images of a data set, one row an image."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from lib.data.dataset import SegmentationDataset
from lib.devices import find_device, moved
from lib.evaluation.metrics import score_image
from lib.training.method import Method, inference


def evaluate(
    predict: Method | Callable[[Tensor], Tensor],
    dataset: SegmentationDataset,
    indices: Sequence[int],
    *,
    batch_size: int = 16,
    device: torch.device | str | None = None,
) -> list[dict]:
    """Predict each image and compare it with its mask.

    The predicted class is the one of the largest logit; for two classes that is a foreground
    probability above 0.5.

    Args:
        predict: a method, whose ``predict`` is called, or a function or network from images
            ``B x 3 x H x W`` in [0, 1] to logits ``B x C x H x W``, C = ``dataset.classes``.
            Modules, and those whose bound function is given, are put in evaluation mode and back.
        dataset: opened at one ``size``, so that images form batches.
        indices: which images, as data set indices.
        batch_size: images predicted at a time; changes memory and speed only.
        device: "auto" or another of `lib.devices.find_device`: where to compute. A module is moved
            there for the while. By default where its parameters are; without a module the CPU.

    Returns:
        For each index the dict of ``score_image`` with the image's "name" in front.

    Raises:
        ValueError: if there is nothing to score, images differ in size, or the logits have
            another number of classes or another size than the masks.
    """
    if not len(indices):
        raise ValueError("indices is empty: there is no image to evaluate")
    owner = getattr(predict, "__self__", predict)  # of a method such as `network.predict`
    module = owner if isinstance(owner, nn.Module) else None
    forward = predict.predict if isinstance(predict, Method) else predict
    if device is not None:
        device = find_device(str(device))
    else:
        device = next(module.parameters()).device if module is not None else torch.device("cpu")

    rows = []
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if module is not None:
            stack.enter_context(moved(module, device))
            stack.enter_context(inference(module))
        for start in range(0, len(indices), batch_size):
            chosen = [int(i) for i in indices[start : start + batch_size]]
            logits = forward(_stack(dataset, chosen).to(device))
            for index, one in zip(chosen, logits, strict=True):
                mask = dataset.mask(index)
                if one.shape != (dataset.classes, *mask.shape):
                    raise ValueError(
                        f"logits of {dataset.names[index]} are {tuple(one.shape)}, expected "
                        f"classes x H x W = {(dataset.classes, *mask.shape)}"
                    )
                scores = score_image(one.argmax(0).cpu(), mask, classes=dataset.classes)
                rows.append({"name": dataset.names[index], **scores})
    return rows


def _stack(dataset: SegmentationDataset, chosen: list[int]) -> Tensor:
    images = [dataset.image(i) for i in chosen]
    if len({image.shape for image in images}) > 1:
        raise ValueError(
            "images differ in size and cannot form a batch; open the data set with size=..., or "
            "evaluate with batch_size=1"
        )
    return torch.stack(images)
