"""MACs, parameters and activations against torch's counter and published figures."""

from __future__ import annotations

from typing import Any

import pytest

from harness.interfaces import MODELS
from harness.profile import _Call, peak, profile
from harness.records import ModelSpec

torch = pytest.importorskip("torch", reason="networks are built in torch")

LABELS = ("background", "object")
PUBLISHED_M = {1.0: 182.673, 0.75: 112.626, 0.5: 58.831, 0.35: 33.669}
"""MACs of EtinyNet's backbone by width, in millions, as TinyML_Det's authors counted them."""


def counted(network: Any, size: int) -> tuple[float, int]:
    """MACs by torch's counter, and elements that batch norms read."""
    from torch.utils.flop_counter import FlopCounterMode

    elements = []
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _, given, __: elements.append(given[0].numel()))
    network = network.to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, size, size, device="meta"))
    return counter.get_total_flops() / 2, sum(elements)


@pytest.mark.parametrize("width", PUBLISHED_M)
def test_etinynet_backbones_have_the_published_macs(width: float) -> None:
    """Its authors' counter adds four for each element of a batch norm; ours are folded."""
    from models.etinynet_ssd_lite import backbone

    macs, normed = counted(backbone(width)[0], 256)
    assert (macs + 4 * normed) / 1e6 == pytest.approx(PUBLISHED_M[width], abs=0.001)


def test_squeezenet_has_the_published_macs() -> None:
    from models._squeezenet import backbone

    macs, normed = counted(backbone(), 256)
    assert normed == 0
    assert macs / 1e6 == pytest.approx(346.897, abs=0.001)


@pytest.mark.parametrize("name", ["mb3_small_ssd_lite", "squeezenet1_1_ssd_lite", "rfb_320_face"])
def test_stages_sum_to_torchs_own_count(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    spec = MODELS.get(name)(LABELS)
    found = profile(spec)
    network = spec.build().to("meta")
    image = torch.zeros(1, 3, spec.image.height, spec.image.width, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    assert found.macs == counter.get_total_flops() // 2
    assert sum(stage.macs for stage in found.stages) == found.macs
    assert found.parameters == sum(one.numel() for one in network.parameters())
    assert sum(stage.parameters for stage in found.stages) == found.parameters
    numbers = found.numbers()
    assert numbers["float16_bytes"] * 2 == numbers["float32_bytes"] == 4 * found.parameters


def test_the_peak_of_a_small_network_is_as_counted_by_hand(tiny_spec: ModelSpec) -> None:
    """The bottleneck holds its input (8 maps of 16 x 16) and two of 24 maps at once."""
    assert profile(tiny_spec).activation_bytes == (8 + 24 + 24) * 16 * 16 * 4


def test_what_is_alive_counts_and_what_is_fused_does_not() -> None:
    calls = [
        _Call("convolution", (0,), {1: 40}),
        _Call("relu", (1,), {2: 40}),
        _Call("view", (2,), {2: 40}),
        _Call("convolution", (2,), {3: 30}),
        _Call("add", (2, 3), {4: 30}),
    ]
    assert peak(calls, 0, 10) == 40 + 30 + 30
    kept = [*calls[:2], _Call("add", (1, 2), {3: 40})]
    assert peak(kept, 0, 10) == 3 * 40, "what is read again is not overwritten"
