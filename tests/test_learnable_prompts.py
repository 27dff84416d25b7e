import pytest
import torch

from lib.prompts.class_boxes import class_boxes
from lib.prompts.learnable import LearnablePrompts


def test_size_is_that_of_the_released_prompts():
    with torch.device("meta"):
        prompts = LearnablePrompts(classes=2)
    assert sum(p.numel() for p in prompts.parameters()) == 11_156_992


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_tokens_of_the_width_of_the_embedding_and_every_weight_a_gradient(norm):
    torch.manual_seed(0)
    prompts = LearnablePrompts(classes=3, channels=16, tokens=5, norm=norm)
    tokens = prompts(torch.randn(2, 16, 8, 8))
    assert tokens.shape == (2, 3, 5, 16)
    tokens.square().mean().backward()
    assert [name for name, p in prompts.named_parameters() if p.grad is None] == []


def test_every_class_has_a_network_of_its_own():
    prompts = LearnablePrompts(classes=2, channels=16).eval()
    embedding = torch.randn(1, 16, 4, 4)
    found = prompts(embedding)
    for c, network in enumerate(prompts.networks):
        torch.testing.assert_close(found[0, c], network(embedding).view(2, 16))
    assert not torch.equal(found[0, 0], found[0, 1])


def test_with_group_norm_a_sample_does_not_feel_the_others_of_its_batch():
    embedding = torch.randn(4, 16, 8, 8)
    alone_and_in_company = {}
    for norm in ("batch", "group"):
        prompts = LearnablePrompts(classes=1, channels=16, norm=norm, dropout=0).train()
        alone_and_in_company[norm] = prompts(embedding[:2]), prompts(embedding)[:2]
    torch.testing.assert_close(*alone_and_in_company["group"])
    with pytest.raises(AssertionError):
        torch.testing.assert_close(*alone_and_in_company["batch"])


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="norm must be one of batch, group, not 'layer'"):
        LearnablePrompts(classes=2, norm="layer")
    with pytest.raises(ValueError, match="channels that divide by 8, not 12"):
        LearnablePrompts(classes=2, channels=12, norm="group")


def test_boxes_of_classes_by_hand():
    label = torch.zeros(2, 6, 8, dtype=torch.int64)
    label[0, 1:4, 2:7] = 1
    label[0, 3, 5] = 2
    logits = torch.nn.functional.one_hot(label, 4).movedim(-1, 1).float().requires_grad_()
    whole = [0, 0, 7, 5]
    boxes = class_boxes(logits)
    assert boxes[0].tolist() == [whole, [2, 1, 6, 3], [5, 3, 5, 3], whole]
    assert boxes[1].tolist() == [whole] * 4
    assert not boxes.requires_grad
