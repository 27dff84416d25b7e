"""How well a SAM follows prompts: mean IoU by kind of prompt, against geometry alone.

Users are simulated: tight boxes, boxes drawn in haste (each coordinate off by a normal error of
12 % of the side), a click in the middle of the object, and corrections in the middle of the
largest error. The floors are the ellipse inscribed in the same box, which never saw the image, and
two classics that saw no other image: GrabCut from the same boxes, random walker from the same
clicks.
"""

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from lib.evaluation.classical import grab_cut, random_walk
from lib.prompts.corrections import boxes_of, noisy_boxes
from lib.sam.small import IMAGE_SIZE
from lib.training.small_sam import decode_prompted, hard_iou

BOX_ERROR = 0.12
CLICKS = 5


def largest_object(mask):
    """Largest 8-connected component (bool `H x W`) of a mask, or None if it is empty."""
    parts, count = ndimage.label(np.asarray(mask) > 0, np.ones((3, 3)))
    if not count:
        return None
    return parts == 1 + np.bincount(parts.ravel())[1:].argmax()


def middle(region):
    """(x, y) of the pixel deepest inside a boolean region (`H x W`, not empty)."""
    depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return float(column), float(row)


def correction(prediction, target):
    """Click (x, y) and label in the middle of the largest error of bool `H x W` masks."""
    error = largest_object(prediction ^ target)
    x, y = middle(target if error is None else error)
    return (x, y), float(target[int(y), int(x)])


def ellipses(boxes, size=IMAGE_SIZE):
    """Ellipses inscribed in boxes `N x 4`: bool `N x size x size`."""
    axis = torch.arange(size, dtype=torch.float32)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2] + 1) / 2
    x = (axis - centre[:, :1]) / half[:, :1]
    y = (axis - centre[:, 1:]) / half[:, 1:]
    return x[:, None, :] ** 2 + y[:, :, None] ** 2 <= 1


@torch.no_grad()
def evaluate_prompts(sam, images, masks, *, seed=0, batch_size=16, classical=0):
    """Scores of every prompt on every image.

    `images`: `N x 3 x 256 x 256` in [0, 1] or uint8; `masks`: bool `N x 256 x 256`, one object
    each, none empty. Returns arrays of length N: IoU under `tight_box`, `jittered_box`,
    `clicks_1` ... `clicks_5`, `box_click` (a correction of the jittered box), `clicks_1_oracle`
    (best of the three masks), `ellipse_tight`, `ellipse_jittered`; and the head's estimates
    `quality_tight_box`, `quality_jittered_box`, `quality_clicks_1`. For the first `classical`
    images, about a second each, also `grab_cut_tight`, `grab_cut_jittered`, `random_walk_1` and
    `random_walk_3` (clicks, corrections of its own mask); NaN for the others.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        image = images[part].float() / (255 if images.dtype == torch.uint8 else 1)
        scores, prompts = _evaluate_batch(sam, image, masks[part], generator)
        if classical:
            scores |= _classical(image, masks[part], prompts, classical - start)
        rows.append(scores)
    return {key: torch.cat([row[key] for row in rows]).numpy() for key in rows[0]}


def _evaluate_batch(sam, image, target, generator):
    embeddings = sam.image_encoder(sam.preprocess(255 * image))
    count, scores = len(image), {}
    tight = boxes_of(target)
    jittered = noisy_boxes(tight, BOX_ERROR, target.shape[1:], generator)
    unused = torch.zeros(count, 1, 2), torch.ones(count, 1)
    for name, boxes in (("tight", tight), ("jittered", jittered)):
        low, quality = decode_prompted(sam, embeddings, *unused, boxes, None)
        scores[f"{name}_box"] = hard_iou(_full(low[:, :1]), target)[:, 0]
        scores[f"quality_{name}_box"] = quality[:, 0]
        scores[f"ellipse_{name}"] = hard_iou(ellipses(boxes)[:, None].float(), target)[:, 0]
    points, labels = _corrections(_full(low[:, :1])[:, 0] > 0, target)
    points, labels = torch.cat([unused[0], points], 1), torch.cat([unused[1], labels], 1)
    low, _ = decode_prompted(sam, embeddings, points, labels, jittered, low[:, :1])
    scores["box_click"] = hard_iou(_full(low[:, :1]), target)[:, 0]
    clicked, points, labels = _clicks(sam, embeddings, target)
    prompts = {"tight": tight, "jittered": jittered, "points": points, "labels": labels}
    return scores | clicked, prompts


def _clicks(sam, embeddings, target):
    """A click in the middle, then corrections, each with the logits before it.

    Returns scores, points `N x k x 2` and labels `N x k`.
    """
    everyone, none = torch.arange(len(target)), torch.zeros(0, 4)
    points, labels = _corrections(torch.zeros_like(target), target)
    scores, previous = {}, None
    for click in range(1, CLICKS + 1):
        low, quality = decode_prompted(sam, embeddings, points, labels, none, previous)
        iou = hard_iou(_full(low), target)
        chosen = torch.zeros(len(target), dtype=torch.long)
        if click == 1:  # ambiguous: the head chooses one of three
            chosen = 1 + quality[:, 1:].argmax(1)
            scores["clicks_1_oracle"] = iou[:, 1:].max(1).values
            scores["quality_clicks_1"] = quality[everyone, chosen]
        scores[f"clicks_{click}"] = iou[everyone, chosen]
        previous = low[everyone, chosen][:, None]
        more = _corrections(_full(previous)[:, 0] > 0, target)
        points, labels = torch.cat([points, more[0]], 1), torch.cat([labels, more[1]], 1)
    return scores, points, labels


def _classical(images, target, prompts, count):
    """Scores of the classics on the first `count` images of a batch."""
    names = ("grab_cut_tight", "grab_cut_jittered", "random_walk_1", "random_walk_3")
    scores = {name: torch.full((len(images),), torch.nan) for name in names}
    pictures = (255 * images).round().byte().permute(0, 2, 3, 1).numpy()
    for k, picture in enumerate(pictures[: max(count, 0)]):
        found = {f"grab_cut_{b}": grab_cut(picture, prompts[b][k]) for b in ("tight", "jittered")}
        points, labels = prompts["points"][k, :1], prompts["labels"][k, :1]
        for click in (1, 2, 3):
            mask = found[f"random_walk_{click}"] = random_walk(picture, points, labels)
            point, label = correction(mask, target[k].numpy())
            points = torch.cat([points, torch.tensor([point])])
            labels = torch.cat([labels, torch.tensor([label])])
        for name in names:
            mask = torch.from_numpy(found[name])
            scores[name][k] = (mask & target[k]).sum() / (mask | target[k]).sum()
    return scores


def _corrections(prediction, target):
    clicks = [correction(p.numpy(), t.numpy()) for p, t in zip(prediction, target, strict=True)]
    points = torch.tensor([[point] for point, _ in clicks])
    return points, torch.tensor([[label] for _, label in clicks])


def _full(logits):
    return F.interpolate(logits, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False)


def summarise_prompts(scores):
    """Means of the IoUs (NaN left out), and how far the head's estimates can be trusted.

    Adds `correlation_*` (Pearson, of estimate and IoU) and `overestimate_*` (mean of their
    difference) for the two boxes and the first click.
    """
    means = {k: float(np.nanmean(v)) for k, v in scores.items() if not k.startswith("quality")}
    for prompt in ("tight_box", "jittered_box", "clicks_1"):
        estimate, iou = scores[f"quality_{prompt}"], scores[prompt]
        if estimate.std() > 0 and iou.std() > 0:
            means[f"correlation_{prompt}"] = float(np.corrcoef(estimate, iou)[0, 1])
        means[f"overestimate_{prompt}"] = float((estimate - iou).mean())
    return means
