"""The depthwise convolution beside PyTorch's own: the same numbers, a more exact gradient of the weight."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from crnn_deploy.networks.depthwise import Depthwise


@pytest.fixture
def both() -> tuple[Depthwise, nn.Conv2d]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    own, plain = Depthwise(48, 5), nn.Conv2d(48, 48, 5, 1, 2, groups=48, bias=False)
    plain.load_state_dict(own.state_dict())
    for layer in (own, plain):
        layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return own, plain


def learned(layer: nn.Conv2d, images: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Tensor, Tensor]:
    """Output, and the gradients of images and weight, of a mean of squares."""
    images = images.detach().clone(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        result = layer(images)
    result.float().square().mean().backward()
    assert images.grad is not None and layer.weight.grad is not None
    return result.detach(), images.grad, layer.weight.grad


def test_in_bf16_only_the_gradient_of_the_weight_differs(both: tuple[Depthwise, nn.Conv2d]) -> None:
    own, plain = both
    images = torch.randn(16, 48, 4, 37)
    result, of_images, of_weight = learned(own, images, torch.bfloat16)
    expected, of_same_images, of_same_weight = learned(plain, images, torch.bfloat16)
    assert result.dtype == torch.bfloat16 and torch.equal(result, expected)
    assert torch.equal(of_images, of_same_images)
    exact = nn.Conv2d(48, 48, 5, 1, 2, groups=48, bias=False).double()
    exact.load_state_dict(plain.state_dict())
    *_, of_exact_weight = learned(exact, images.double(), None)

    def error(found: Tensor) -> float:
        return float((found - of_exact_weight).norm() / of_exact_weight.norm())

    assert of_weight.dtype == torch.float32 and error(of_weight) < 0.01
    assert error(of_weight) <= error(of_same_weight)


@pytest.mark.parametrize("training", [True, False])
def test_elsewhere_it_is_pytorchs_own(both: tuple[Depthwise, nn.Conv2d], training: bool) -> None:
    own, plain = both
    own.train(training)
    images = torch.randn(3, 48, 2, 20)
    for found, expected in zip(learned(own, images, None), learned(plain, images, None), strict=True):
        assert torch.equal(found, expected)


def test_a_frozen_weight_has_no_gradient(both: tuple[Depthwise, nn.Conv2d]) -> None:
    own, _ = both
    own.weight.requires_grad_(False)
    images = torch.randn(2, 48, 2, 20, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own(images).float().sum().backward()
    assert own.weight.grad is None and images.grad is not None
