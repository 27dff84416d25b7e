"""The training step of KnowSAM's released code, transcribed from what it computes.

Huang et al. 2025, arXiv 2412.13742; github.com/taozh2017/KnowSAM has no licence, so none of its
lines is here. Weights are those of this project's `KnowSam` in its released configuration, so that
losses and gradients can be laid side by side. What costs the released step its time is kept:

* windows of SAM's encoder are padded to 28 x 28 tokens at 256 px before the norm, and adapters
  work on the padding too; attention multiplies out the whole matrix of logits;
* SAM's decoder runs once a class, and keeps a gradient for unlabelled images, which no loss reads;
* networks keep images channels first;
* two backward passes.
"""

import math

import torch
from segment_anything.modeling.image_encoder import (
    Attention,
    Block,
    ImageEncoderViT,
    window_partition,
    window_unpartition,
)
from torch import Tensor, nn
from torch.nn import functional

from lib.models.co_training import CoPrediction, CoTraining
from lib.sam.adapted import AdaptedSam
from lib.training.knowsam import KnowSam
from lib.training.method import Progress
from lib.training.schedules import sigmoid_ramp_up

GUARD = 1e-6  # added inside every logarithm of a probability
TEMPERATURE = 10
ENTROPY_WEIGHT = 0.9
PATCHES, GRID = 5, 4


def plain_layout(method: KnowSam) -> KnowSam:
    """Give the students torch's default layout, and the subnets' activations their own memory."""
    for subnet in (method.students.first, method.students.second):
        for module in subnet.modules():
            if isinstance(module, nn.LeakyReLU | nn.ReLU):
                module.inplace = False
    method.students.to(memory_format=torch.contiguous_format)
    return method


def plain_step(
    method: KnowSam, images: Tensor, masks: Tensor, progress: Progress, *, exchange: bool
) -> dict[str, Tensor]:
    """One released step without the optimisers': losses, and gradients in the parameters.

    Args:
        method: from `plain_layout`, its SAM loaded with `fused_attention=False`.
        images: (L + U) x 3 x H x W in [0, 1], the labelled first. masks: L x H x W int64.
        exchange: whether patches are exchanged already (from iteration 12,000 on).

    Returns:
        "sam" and "students", the two that are differentiated, and "constant": what the released
        code adds to the students' loss without any gradient (the V-Net's consistency).
    """
    labelled, weight = len(masks), sigmoid_ramp_up(progress.fraction)
    first, second, fused = predict(method.students, images)
    sam = ask_sam(method.teacher, images, fused)
    sam_loss = supervised(sam[:labelled], masks)
    answer = sam.detach()
    subnets = 0
    for logits in (first, second):
        subnets = subnets + supervised(logits[:labelled], masks) + distilled(logits, answer)
        subnets = subnets + ENTROPY_WEIGHT * entropy(logits)
    consistency, constant = consistencies(first, second)
    students = (subnets + weight * consistency) / 2 + supervised(fused[:labelled], masks)
    constant = weight * constant / 2
    if exchange:
        mixed, targets = exchanged(images, masks, fused, answer)
        loss, more = mixed_loss(predict(method.students, mixed), targets, labelled, weight)
        students, constant = students + loss, constant + more
    sam_loss.backward()
    (students + constant).backward()
    return {"sam": sam_loss.detach(), "students": students.detach(), "constant": constant.detach()}


def predict(students: CoTraining, images: Tensor) -> CoPrediction:
    """Logits of both subnets and of their fusion, which sees how sure they are and where alike."""
    first, second = students.first(images), students.second(images)
    sure = [1 - entropy_map(logits) for logits in (first, second)]
    a, b = (logits.softmax(dim=1) > 0.5 for logits in (first, second))
    fusion = students.fusion
    views = (
        fusion.dissimilarity(1 - (a ^ b).float()),
        fusion.entropy(torch.cat(sure, dim=1)),
        fusion.predictions(torch.cat([first, second], dim=1)),
    )
    return CoPrediction(first, second, fusion.join(torch.cat(views, dim=1)))


def ask_sam(teacher: AdaptedSam, images: Tensor, fused: Tensor) -> Tensor:
    """SAM's logits, class by class."""
    sam = teacher.sam
    embedding = encode(sam.image_encoder, images)
    tokens = [network(embedding) for network in teacher.prompts.networks]
    masks = []
    for index, token in enumerate(tokens):
        side = sam.prompt_encoder.mask_input_size
        prompt = functional.interpolate(fused[:, index : index + 1].detach(), side, mode="bilinear")
        _, dense = sam.prompt_encoder(points=None, boxes=None, masks=prompt)
        sparse = token.unflatten(1, (-1, embedding.shape[1]))
        masks.append(decode(sam, embedding, sparse, dense))
    return functional.interpolate(torch.cat(masks, dim=1), images.shape[2:], mode="bilinear")


def encode(encoder: ImageEncoderViT, images: Tensor) -> Tensor:
    """Embedding B x L x h x w of images in [0, 1]."""
    x = encoder.patch_embed(images) + encoder.pos_embed
    for block in encoder.blocks:
        x = encode_block(block, x)
    return encoder.neck(x.permute(0, 3, 1, 2))


def encode_block(block: Block, x: Tensor) -> Tensor:
    """Pad and cut windows, norm, attend, adapt; put together again, MLP with its adapter."""
    shortcut, size, grid = x, block.window_size, x.shape[1:3]
    if size:
        x, padded = window_partition(x, size)
    norm, attention, mlp = block.norm1, block.attn, block.mlp
    x = functional.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    x = Attention.forward(attention, x)  # past the hooks that hold the adapter
    x = x + attention.adapter(x)
    if size:
        x = window_unpartition(x, size, padded, grid)
    x = shortcut + x
    normed = block.norm2(x)
    return x + mlp.lin2(mlp.act(mlp.lin1(normed))) + 0.5 * mlp.adapter(normed)


def decode(sam, embedding: Tensor, sparse: Tensor, dense: Tensor) -> Tensor:
    """Logits B x 1 x 4h x 4w of one class; all four masks are made, and the first is kept."""
    decoder, batch = sam.mask_decoder, len(embedding)
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([own.expand(batch, -1, -1), sparse], dim=1)
    source = embedding + dense
    position = sam.prompt_encoder.get_dense_pe().repeat_interleave(batch, dim=0)
    tokens, grid = decoder.transformer(source, position, tokens)
    grid = decoder.output_upscaling(grid.transpose(1, 2).reshape(source.shape))
    networks = decoder.output_hypernetworks_mlps
    weights = [network(tokens[:, 1 + index]) for index, network in enumerate(networks)]
    decoder.iou_prediction_head(tokens[:, 0])
    masks = torch.stack(weights, dim=1) @ grid.flatten(2)
    return masks.unflatten(2, grid.shape[2:])[:, :1]


def supervised(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy, and Dice pooled over the batch, class by class."""
    probabilities, loss = logits.softmax(dim=1), 0
    for index in range(logits.shape[1]):
        score, truth = probabilities[:, index], (masks == index).float()
        sizes = (score * score).sum() + (truth * truth).sum()
        loss = loss + 1 - (2 * (score * truth).sum() + 1e-10) / (sizes + 1e-10)
    return functional.cross_entropy(logits, masks) + loss / logits.shape[1]


def distilled(logits: Tensor, answer: Tensor) -> Tensor:
    """T^2 KL(SAM || network) of the pixels; for two classes, where the released code is right."""
    student, teacher = (
        t.permute(0, 2, 3, 1).reshape(-1, 2) / TEMPERATURE for t in (logits, answer)
    )
    student = functional.log_softmax(student, dim=1)
    target = functional.softmax(teacher, dim=1)
    return TEMPERATURE**2 * functional.kl_div(student, target, reduction="batchmean")


def entropy_map(logits: Tensor) -> Tensor:
    """-sum p log(p + 1e-6), B x 1 x H x W."""
    probabilities = logits.softmax(dim=1)
    return -(probabilities * (probabilities + GUARD).log()).sum(dim=1, keepdim=True)


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy in bits."""
    return entropy_map(logits).mean() / math.log(2)


def consistencies(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Of the last class; the U-Net learns from the V-Net, and the other way round nobody does."""
    one, other = (logits.softmax(dim=1)[:, -1] for logits in (first, second))
    low, high = 1e-8, 1 - 1e-7
    taught = functional.binary_cross_entropy(one.clamp(low, high), other.detach())
    return taught, functional.binary_cross_entropy(one.detach().clamp(low, high), other.detach())


def exchanged(
    images: Tensor, masks: Tensor, fused: Tensor, answer: Tensor
) -> tuple[Tensor, Tensor]:
    """Swap the surest patches of labelled and unlabelled images, and of masks and SAM's answer."""
    labelled, side = len(masks), images.shape[-1] // GRID
    means = functional.adaptive_avg_pool2d(entropy_map(fused.detach()), GRID).flatten(1)
    surest = means.topk(PATCHES, largest=False).indices
    chosen = torch.zeros_like(means).scatter(1, surest, 1).unflatten(1, (GRID, GRID))
    chosen = chosen.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)
    targets = torch.cat([masks, answer[labelled:].argmax(dim=1)])
    pictures, labels = [], []
    for index in range(len(images)):
        partner = (index + labelled) % len(images)
        inside = chosen[index]
        pictures.append(images[partner] * inside + images[index] * (1 - inside))
        labels.append(targets[partner] * inside + targets[index] * (1 - inside))
    return torch.stack(pictures), torch.stack(labels).long()


def mixed_loss(
    prediction: CoPrediction, targets: Tensor, labelled: int, weight: float
) -> tuple[Tensor, Tensor]:
    """All losses once more on mixed images, and the fusion's own answer on the unlabelled ones."""
    first, second, fused = prediction
    own = fused[labelled:].argmax(dim=1)
    loss = 0
    for logits in (first, second):
        loss = loss + supervised(logits, targets) + ENTROPY_WEIGHT * entropy(logits)
        loss = loss + weight * supervised(logits[labelled:], own)
    consistency, constant = consistencies(first, second)
    loss = (loss + weight * consistency) / 2 + supervised(fused, targets)
    return loss, weight * constant / 2
