"""Time steps by shapes are those of the network when it runs, or none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from crnn_deploy.export.shapes import steps_by_shapes
from crnn_deploy.networks.clovaai import FourStage, resnet
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.networks.gitycc import GitYccCRNN

SMALL = (4, 4, 8, 8, 8, 8, 8)
WIDTHS = (16, 17, 18, 19, 33, 50, 100)


class Data(nn.Module):
    """A network whose time steps depend on what it sees."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, : int(images.abs().sum()) + 2]


@pytest.mark.parametrize(
    "module",
    [
        CRNN(32, 1, 11, 8, widths=SMALL),
        GitYccCRNN(32, 1, 11, 8, 8, widths=SMALL),
        FourStage(resnet(1, 32), 32, 8, 11),
    ],
)
def test_steps_are_those_of_a_run(module: nn.Module) -> None:
    module.eval()
    with torch.inference_mode():
        ran = {width: module(torch.zeros(1, 1, 32, width)).shape[1] for width in WIDTHS}
    assert steps_by_shapes(module, 1, 32, WIDTHS) == ran
    assert not any(parameter.is_meta for parameter in module.parameters())  # the module itself is left


def test_nothing_is_claimed_where_numbers_decide() -> None:
    assert steps_by_shapes(Data(), 1, 32, WIDTHS) == {}


def test_nothing_is_claimed_below_the_smallest_width() -> None:
    assert steps_by_shapes(GitYccCRNN(32, 1, 11, 8, 8, widths=SMALL).eval(), 1, 32, (2, 16)) == {}
