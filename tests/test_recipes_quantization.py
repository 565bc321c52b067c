"""Recipes about integers, on networks small enough to compute by hand."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness import recipes
from harness.config import load
from harness.errors import BadConfig, Unsupported
from harness.plan import make_plan
from harness.recipes import Supplies
from harness.records import ModelSpec

torch = pytest.importorskip("torch", reason="recipes change torch networks")

from torch import Tensor, nn  # noqa: E402  # after the skip

from models._checkpoint import load_weights  # noqa: E402  # after the skip
from models.mb2_ssd_lite import mb2_ssd_lite  # noqa: E402  # after the skip
from models.recipes._adaptive import round_all  # noqa: E402  # after the skip
from models.recipes._folding import fold  # noqa: E402  # after the skip
from models.recipes._rounding import grid_of, rounded, rows_of  # noqa: E402  # after the skip
from models.recipes._scheme import PRESETS, Scheme  # noqa: E402  # after the skip

Images = NDArray[np.float32]
WEIGHTS = Path(__file__).resolve().parents[1] / "models/weights/mb2_ssd_lite-shapes.safetensors"


pytestmark = pytest.mark.usefixtures("one_thread")


def conv(weight: Any, bias: Any = None, **settings: Any) -> nn.Conv2d:
    """A convolution with the weights given, (outputs, inputs) where its kernel is 1x1."""
    values = torch.tensor(weight, dtype=torch.float32)
    values = values if values.ndim == 4 else values[:, :, None, None]
    groups = settings.get("groups", 1)
    made = nn.Conv2d(
        values.shape[1] * groups,
        values.shape[0],
        tuple(values.shape[2:]),
        bias=bias is not None,
        **settings,
    )
    made.weight.data = values
    if bias is not None and made.bias is not None:
        made.bias.data = torch.tensor(bias, dtype=torch.float32)
    return made


def pixel(*channels: float) -> Images:
    """An image of one pixel, (1, channels, 1, 1)."""
    return np.array(channels, np.float32)[None, :, None, None]


def follow(text: str, network: nn.Module, *images: Images) -> tuple[Any, tuple[str, ...]]:
    spec: Any = type("Spec", (), {"name": "small"})
    supplies = Supplies(calibration=lambda: iter(images))
    return recipes.parse(text).apply(spec, network.eval(), supplies)


def answer(network: nn.Module, image: Images) -> list[float]:
    with torch.no_grad():
        values: list[float] = network(torch.from_numpy(image)).flatten().tolist()
    return values


@pytest.mark.parametrize("recipe", ["fold", "equalize", "fold+quantsim", "fold+bias_correct"])
def test_what_a_recipe_put_in_is_in_eval_mode(recipe: str) -> None:
    layers = [conv([[2.0]]), nn.BatchNorm2d(1), nn.ReLU6(), conv([[1.0]])]
    network, _ = follow(recipe, nn.Sequential(*layers), pixel(1.0), pixel(3.0))
    assert not any(module.training for module in network.modules())


def sqnr_db(got: Tensor, expected: Tensor) -> float:
    return float(10 * torch.log10(expected.square().sum() / (got - expected).square().sum()))


def test_a_batch_norm_is_folded_by_its_formula() -> None:
    norm = nn.BatchNorm2d(1, eps=0.0)
    norm.load_state_dict(
        {
            "weight": torch.tensor([3.0]),
            "bias": torch.tensor([0.5]),
            "running_mean": torch.tensor([1.0]),
            "running_var": torch.tensor([4.0]),
            "num_batches_tracked": torch.tensor(1),
        }
    )
    network, (said,) = follow("fold", nn.Sequential(conv([[2.0]], [1.0]), norm, nn.ReLU()))
    assert said == "folded 1 batch norms into convolutions"
    assert network[0].weight.item() == pytest.approx(2 * 3 / 2)
    assert network[0].bias.item() == pytest.approx((1 - 1) * 3 / 2 + 0.5)
    assert isinstance(network[1], nn.Identity)


def test_a_batch_norm_that_others_read_around_stays() -> None:
    class Tapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(x)
            return self.norm(y) + y  # type: ignore[no-any-return]  # a module's call is untyped

    network, (said,) = follow("fold", Tapped())
    assert said.startswith("folded 0 ")
    assert isinstance(network.norm, nn.BatchNorm2d)


def test_two_convolutions_share_their_ranges_and_relu6_its_limits() -> None:
    before = nn.Sequential(conv([[8.0], [0.5]], [4.0, 1.0]), nn.ReLU6(), conv([[0.5, 8.0]]))
    network, said = follow("equalize:absorb=false", copy.deepcopy(before))
    # scales sqrt(8 / 0.5) = 4 and sqrt(0.5 / 8) = 1 / 4
    assert network[0].weight.flatten().tolist() == pytest.approx([2, 2])
    assert network[0].bias.tolist() == pytest.approx([1, 4])
    assert network[2].weight.flatten().tolist() == pytest.approx([2, 2])
    assert network[1].upper.flatten().tolist() == pytest.approx([6 / 4, 6 * 4])
    assert "1 ReLU6 became a limit for each channel" in said
    for value in (-1.0, 0.1, 0.5, 20.0):
        assert answer(network, pixel(value)) == pytest.approx(answer(before.eval(), pixel(value)))


def test_scales_move_through_a_depthwise_convolution() -> None:
    before = nn.Sequential(
        conv([[16.0], [1.0]]), nn.ReLU(), conv(np.ones((2, 1, 1, 1)), groups=2), conv([[1.0, 16.0]])
    )
    network, (said,) = follow("equalize:absorb=false", copy.deepcopy(before))
    assert "equalised 2 pairs" in said
    ranges = [layer.weight.detach().abs().amax((1, 2, 3)) for layer in (network[0], network[2])]
    assert ranges[0] == pytest.approx(ranges[1], rel=2e-3)
    assert answer(network, pixel(2.0)) == pytest.approx(answer(before.eval(), pixel(2.0)))


def test_what_every_value_exceeds_moves_into_the_next_bias() -> None:
    before = nn.Sequential(conv([[1.0], [1.0]], [5.0, -1.0]), nn.ReLU(), conv([[2.0, 2.0]], [0.0]))
    network, said = follow("equalize", copy.deepcopy(before), pixel(-1.0), pixel(2.0))
    # the first channel is 4 and 7 before the ReLU, the second at most 1
    assert "absorbed the bias of 1 channels" in said[-1]
    scale = network[2].weight[0, 0].item() / 2.0
    assert network[0].bias[0].item() * scale == pytest.approx(5 - 4)
    assert network[2].bias.item() == pytest.approx(4 * 2)
    for value in (-1.0, 0.0, 2.0):
        assert answer(network, pixel(value)) == pytest.approx(answer(before.eval(), pixel(value)))


def test_the_shift_of_rounded_weights_is_taken_off_the_bias() -> None:
    # two bits: -1, 0 and 1 times the largest weight, so that 0.6 becomes 1
    network, _ = follow(
        "bias_correct:weights=2", nn.Sequential(conv([[1.0, 0.6]], [0.5])), pixel(1, 1), pixel(1, 3)
    )
    assert network[0].weight.flatten().tolist() == pytest.approx([1.0, 0.6])
    assert network[0].bias.item() == pytest.approx(0.5 - 0.4 * 2)  # the mean of its input is 2


def test_the_shift_of_a_later_layer_is_what_remains() -> None:
    layers = nn.Sequential(conv([[1.0, 0.6]]), conv([[1.0], [0.6]]))
    network, _ = follow("bias_correct:weights=2", layers, pixel(1, 1))
    assert network[0].bias.item() == pytest.approx(-0.4)
    # the first layer answers 1.6 in the mean again; only the second one's own rounding is left
    assert network[1].bias.tolist() == pytest.approx([0.0, 0.0])


def test_batch_norms_are_counted_anew_on_calibration_images() -> None:
    network = nn.Sequential(conv([[2.0]]), nn.BatchNorm2d(1, 1e-6), nn.BatchNorm2d(1, 1e-6))
    network[1].running_mean.fill_(-9.0)
    images = pixel(1.0), pixel(3.0)
    with pytest.raises(Unsupported, match="settle does not apply to small: it has no batch norm"):
        follow("settle", nn.Sequential(conv([[2.0]])), *images)
    with pytest.raises(Unsupported, match="recipes before it fold the batch norms"):
        follow("fold+settle", copy.deepcopy(network), *images)
    network, (said,) = follow("settle", network, *images)
    assert said == "counted the statistics of 2 batch norms anew on 2 images"
    # 2 and 6: mean 4, sample variance 8. While they are counted the first one divides by the
    # batch's own deviation, 2, so that the second sees -1 and 1: mean 0, sample variance 2.
    assert (network[1].running_mean.item(), network[1].running_var.item()) == pytest.approx((4, 8))
    assert (network[2].running_mean.item(), network[2].running_var.item()) == pytest.approx(
        (0, 2), abs=1e-5
    )
    assert network[1].momentum == 0.1
    assert answer(network, pixel(2.0)) == pytest.approx([0.0], abs=1e-5)


def test_numbers_are_simulated_as_integers() -> None:
    images = pixel(0, 15), pixel(15, 0)
    network, (said,) = follow(
        "quantsim:weights=2,activations=4,activation_ranges=minmax",
        nn.Sequential(conv([[1.0, 0.6]], [0.25]), nn.ReLU()),
        *images,
    )
    assert said == "simulates weights of 2 bits and 2 activations of 4 bits"
    # image: steps of 1. Weights: 1 and 1. Output: seen up to 15.25 in float, steps of 15.25 / 15.
    step = 15.25 / 15
    assert answer(network, pixel(3.4, 4.4)) == pytest.approx([round(7.25 / step) * step])
    assert answer(network, pixel(99, 0)) == pytest.approx([15 * step])


def test_more_bits_come_closer(
    tiny_spec: ModelSpec, tiny_calibration: Any, tiny_images: Any
) -> None:
    with torch.no_grad():
        expected = tiny_spec.build()(torch.from_numpy(tiny_images))

    def closeness(options: str) -> float:
        chain = recipes.parse(f"quantsim:{options}")
        network, _ = chain.apply(
            tiny_spec, tiny_spec.build(), Supplies(calibration=tiny_calibration)
        )
        with torch.no_grad():
            got = network(torch.from_numpy(tiny_images))
        return min(sqnr_db(one, two) for one, two in zip(got, expected, strict=True))

    w4a8, w8a8, w8a16 = (
        closeness(f"weights={w},activations={a},activation_ranges=minmax")
        for w, a in ((4, 8), (8, 8), (8, 16))
    )
    assert w4a8 + 3 < w8a8 < w8a16 - 3
    assert closeness("aimet") > 15


@pytest.mark.parametrize("ranges", ["minmax", "percentile", "mse"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("per_channel", [True, False])
def test_what_lies_on_a_grid_is_rounded_to_itself(
    ranges: str, symmetric: bool, per_channel: bool
) -> None:
    """So that rounding once more, in a later recipe or an exporter, changes nothing."""
    scheme = Scheme(4, per_channel, symmetric, ranges)
    generator = torch.Generator().manual_seed(0)
    layer = conv(torch.randn(6, 40, 1, 1, generator=generator).pow(3).tolist())
    once = rounded(layer, scheme)
    assert not torch.equal(once, layer.weight)
    layer.weight.data = once
    torch.testing.assert_close(rounded(layer, scheme), once)


def test_the_range_of_least_squared_error_is_found() -> None:
    """Ninety-nine small values and a large one: 3 bits for all of the range serve that one."""
    rows = torch.cat([torch.linspace(-1, 1, 99), torch.tensor([3.0])])[None]
    grids = [grid_of(rows, Scheme(3, True, True, ranges)) for ranges in ("minmax", "mse")]
    errors = [(grid.nearest(rows) - rows).square().sum().item() for grid in grids]
    tried = [
        grid_of((part * rows.abs().max()).reshape(1, 1), Scheme(3, True, True, "minmax"))
        for part in torch.linspace(0.02, 1, 99)
    ]
    best = min((grid.nearest(rows) - rows).square().sum().item() for grid in tried)
    assert errors[1] <= best * 1.05 < errors[0]


def test_rounding_serves_the_outputs_not_the_weights() -> None:
    # -1, 0 and 1: both 0.45 would become 0, and the output 1 instead of 1.9; with one of them up
    # it is 2. The weight at the end of the grid stays.
    layer = nn.Sequential(conv([[1.0, 0.45, 0.45]]))
    network, _ = follow("adaround:weights=2,iterations=20", layer, pixel(1, 1, 1))
    weight = network[0].weight.flatten().tolist()
    assert weight[0] == 1
    assert sorted(weight[1:]) == [0, 1]


@pytest.mark.parametrize("preset", PRESETS)
def test_no_layer_is_worse_than_with_nearest_rounding(
    preset: str, tiny_spec: ModelSpec, tiny_calibration: Any
) -> None:
    scheme = PRESETS[preset][0]._replace(bits=4)
    network = tiny_spec.build()
    fold(network)
    before = copy.deepcopy(network)
    images = torch.from_numpy(np.concatenate(list(tiny_calibration())))
    errors = round_all(network, scheme, images, iterations=30)
    assert len(errors) == 14
    assert all(error.ours <= error.nearest for error in errors)
    assert sorted(error.ours / error.nearest for error in errors)[0] < 0.6
    # the first layer's error, measured on its outputs
    first, was = network.stem[0], before.stem[0]
    with torch.no_grad():
        expected = was(images)
        ours = (first(images) - expected).square().mean().item()
        was.weight.copy_(rounded(was, scheme))
        nearest = (was(images) - expected).square().mean().item()
    assert errors[0].ours == pytest.approx(ours, rel=0.02)
    assert errors[0].nearest == pytest.approx(nearest, rel=0.02)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            assert all(len(row.unique()) <= 16 for row in rows_of(layer.weight, scheme))


def test_rounding_before_the_batch_norms_are_folded_is_refused(
    tiny_spec: ModelSpec, tiny_calibration: Any
) -> None:
    chain = recipes.parse("adaround:iterations=1")
    with pytest.raises(Unsupported, match=r"put fold or equalize before it, as fold\+adaround"):
        chain.apply(tiny_spec, tiny_spec.build(), Supplies(calibration=tiny_calibration))


def scenes() -> Iterator[Images]:
    rng = np.random.default_rng(0)
    for _ in range(2):
        coarse = rng.uniform(-1, 1, (1, 3, 10, 10)).repeat(30, axis=2).repeat(30, axis=3)
        yield coarse.astype(np.float32)


def test_equalization_leaves_the_function_of_mb2_ssd_lite(tiny_spec: ModelSpec) -> None:
    """Trained weights, ReLU6 throughout, absorption included: relative error below 1e-4."""
    spec = mb2_ssd_lite(("background", *(f"shape {number}" for number in range(10))))
    network = spec.build()
    load_weights(network, WEIGHTS)
    network.eval()
    images = list(scenes())
    batch = torch.from_numpy(np.concatenate(images))
    with torch.no_grad():
        expected = network(batch)
        changed, said = recipes.parse("equalize").apply(
            spec, network, Supplies(calibration=lambda: iter(images))
        )
        got = changed(batch)
    assert "equalised 53 pairs" in said[0]
    for one, two in zip(got, expected, strict=True):
        assert float((one - two).abs().max() / two.abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quantsim:aimmet", "no preset=aimmet: give int8 or aimet"),
        ("quantsim:weights=9", "weights=9: give a whole number from 2 to 8"),
        ("quantsim:activations=2", "activations=2: give a whole number from 4 to 16"),
        ("quantsim:ranges=best", "no ranges=best: give minmax or percentile"),
        ("adaround:per_channel=yes", "per_channel=yes: give true or false"),
        ("adaround:iterations=0", "iterations=0"),
        ("bias_correct:images=many", "option 'images' of recipe bias_correct is 'many'"),
        ("equalize:relu6", "no clip=relu6: give channel or relu"),
        ("quantsim+fold", "quantsim, which nothing can follow"),
        ("fold+adaround+equalize", "equalize undoes what adaround did"),
    ],
)
def test_what_cannot_be_followed_is_known_before_any_work(text: str, message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        make_plan(load(None, {"recipes": [text], "exporters": ["torch_float"]}))


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(Unsupported, match=r"torch\.fx cannot trace it"):
        follow("quantsim", Branching(), pixel(1))
