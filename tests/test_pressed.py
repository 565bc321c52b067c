"""A camera's rate, crowds, sustained runs and profiles, on clocks and machines made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from harness import crowd, profiling, sustained
from harness.errors import DetbenchError, Unsupported
from harness.interfaces import RUNNERS, Operator, RunOptions
from harness.machine_state import MachineState, state
from harness.pacing import Paced, time_paced
from harness.records import ModelSpec
from harness.timing import Tier
from runners import _profile_ort, _profile_tvm

MakeArtifact = Callable[..., Any]
MS = 1_000_000
TIER = Tier(name="quick", samples=10, seconds=0, warmup_calls=0, warmup_seconds=0)


class Clock:
    """Moves by a nanosecond at each reading, by what a call costs, and by what is slept."""

    def __init__(self) -> None:
        self.now, self.slept = 0, 0

    def __call__(self) -> int:
        self.now += 1
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept += round(seconds * 1e9)
        self.now += round(seconds * 1e9)


def paced(clock: Clock, cost: Callable[[int], int], period_ms: int = 33) -> Paced:
    def call(slot: int) -> None:
        clock.now += cost(slot)

    return time_paced(call, TIER, period_ms * MS, inputs=4, clock=clock, sleep=clock.sleep)


def test_a_call_within_the_period_waits_for_the_next_image() -> None:
    clock = Clock()
    found = paced(clock, lambda _: 10 * MS)
    assert found.samples_ns == (10 * MS + 1,) * 10
    assert found.missed == 0
    assert clock.slept == pytest.approx((33 + 9 * 23) * MS, abs=1000)


def test_a_call_beyond_the_period_misses_images() -> None:
    found = paced(Clock(), lambda _: 80 * MS)
    assert found.missed == 9 * 2
    measured = found.measurement({"tier": "quick"})
    assert measured.conditions["missed"] == 18
    assert measured.conditions["period_ns"] == 33 * MS
    assert len(measured.samples) == 10


def test_a_machine_that_slows_down_when_idle_shows_only_at_the_camera_s_rate() -> None:
    clock = Clock()
    asleep = [0]

    def cost(_: int) -> int:
        slow = clock.slept > asleep[0]
        asleep[0] = clock.slept
        return 14 * MS if slow else 10 * MS

    assert float(np.median(paced(clock, cost).samples_ns)) == pytest.approx(14 * MS, rel=1e-3)


def test_a_clock_that_jumps_back_is_refused() -> None:
    with pytest.raises(DetbenchError, match="clock went back"):
        paced(Clock(), lambda _: -5 * MS)


def test_crowded_outputs_hold_as_many_candidates_as_they_say() -> None:
    from tests.test_latency import Pretending, opened  # the pretended artifact has 4 priors

    one = opened(Pretending())
    heads = crowd.crowded(one, 3, np.random.default_rng(0))
    assert crowd.candidates(one, heads) == 3
    found = one.detect(heads, [(300, 300)])[0]
    assert 1 <= len(found.scores) <= 3
    quantized = msgspec.structs.replace(
        one.artifact,
        outputs=tuple(
            msgspec.structs.replace(spec, dtype="int8", scale=0.125, zero_point=10)
            for spec in one.artifact.outputs
        ),
    )
    as_int8 = one._replace(artifact=quantized)
    heads = crowd.crowded(as_int8, 3, np.random.default_rng(0))
    assert heads.logits.dtype == np.int8
    assert crowd.candidates(as_int8, heads) == 3


def long_run(slower_after: float | None, *, seconds: float = 60) -> sustained.Sustained:
    """A run on a machine that throttles to 1.4 times the latency after so many seconds."""
    clock, calm = Clock(), state()
    rng = np.random.default_rng(0)

    def hot() -> bool:
        return slower_after is not None and clock.now > slower_after * 1e9

    def call(_: int) -> None:
        clock.now += int(20 * MS * (1.4 if hot() else 1.0) * rng.lognormal(0, 0.01))

    def look() -> MachineState:
        heat = {"cpu": 80.0 if hot() else 50.0}
        return msgspec.structs.replace(
            calm, frequencies_mhz=(1000.0 if hot() else 1500.0,), temperatures_c=heat
        )

    return sustained.run(call, seconds, inputs=8, clock=clock, look=look)


def test_a_sustained_run_tells_when_it_throttled() -> None:
    found = long_run(40)
    assert found.batched_by == 6
    assert 400 < len(found.samples_ns) < 520
    after = sustained.time_to_throttle_s(found.samples_ns, found.at_ns)
    assert after == pytest.approx(40, abs=1.5)
    first, last = sustained.first_and_last(found.samples_ns)
    assert last / first == pytest.approx(1.4, abs=0.03)
    kinds = {m.metric: m for m in found.measurements({"seconds": 60})}
    clocks, heat = kinds["sustain.mhz"], kinds["sustain.celsius"]
    assert (clocks.samples[0], clocks.samples[-1]) == (1500, 1000)
    assert len(heat.samples) == len(heat.conditions["at_ns"]) >= 50
    assert len(kinds["sustain.inference"].samples) == len(kinds["sustain.at"].samples)


def test_a_run_that_stays_cool_and_one_that_recovers_did_not_throttle() -> None:
    cool = long_run(None)
    assert sustained.time_to_throttle_s(cool.samples_ns, cool.at_ns) is None
    middle = [2.0 if 20 < at / 1e9 < 30 else 1.0 for at in cool.at_ns]
    assert sustained.time_to_throttle_s(middle, cool.at_ns) is None


@pytest.mark.parametrize(
    ("kind", "work"),
    [
        ("Conv", "convolution"),
        ("QLinearConv", "convolution"),
        ("DEPTHWISE_CONV_2D", "convolution"),
        ("aten::linear", "convolution"),
        ("pointwise_convolution_add_32", "convolution"),
        ("QuantizeLinear", "quantize or dequantize"),
        ("DequantizeLinear", "quantize or dequantize"),
        ("QUANTIZE", "quantize or dequantize"),
        ("Transpose", "layout"),
        ("ReorderInput", "layout"),
        ("to_rows_66_361", "layout"),
        ("CONCATENATION", "join or cut"),
        ("aten::hardtanh", "element by element"),
        ("vm.builtin", "other"),
    ],
)
def test_work_is_named_by_the_runtime_s_words(kind: str, work: str) -> None:
    assert profiling.work_of(kind) == work


def test_a_profile_keeps_every_sample_of_every_operator() -> None:
    found = profiling.measurements(
        [Operator("a", "Conv", (5.0, 6.0)), Operator("b", "Mul", (1.0,))]
    )
    assert [m.metric for m in found] == ["profile.0", "profile.1"]
    assert found[0].samples == (5.0, 6.0)
    assert found[0].conditions == {"name": "a", "kind": "Conv", "work": "convolution"}
    with pytest.raises(Unsupported, match="no operator"):
        profiling.measurements([])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exporter", "runner"),
    [("onnx_float", "ort_cpu"), ("torch_float", "torch_cpu"), ("tflite_float", "litert_cpu")],
)
def test_a_real_runtime_tells_its_convolutions(
    exporter: str, runner: str, tiny_spec: ModelSpec, export_artifact: MakeArtifact
) -> None:
    artifact, folder = export_artifact(exporter, tiny_spec)
    spec = artifact.inputs[0]
    images = [np.zeros(spec.shape, spec.dtype)] * 3
    operators = RUNNERS.get(runner)().profile(artifact, folder, RunOptions(), images)
    found = profiling.measurements(operators)
    assert {len(m.samples) for m in found} == {3}
    assert "convolution" in {m.conditions["work"] for m in found}


def test_a_runtime_without_a_profiler_says_so() -> None:
    from tests.test_latency import Pretending, opened

    artifact = opened(Pretending()).artifact
    with pytest.raises(Unsupported, match="null does not tell"):
        RUNNERS.get("null")().profile(artifact, Path(), RunOptions(), [])


def test_ort_s_events_become_operators_without_the_warm_up() -> None:
    def event(name: str, us: float, kind: str = "Conv", cat: str = "Node") -> dict[str, Any]:
        return {"cat": cat, "name": name, "dur": us, "args": {"op_name": kind}}

    events = [event("x_kernel_time", us) for us in (90, 5, 6)]
    events += [event("x_fence_before", 1), event("model_run", 100, cat="Session")]
    assert _profile_ort.operators(events, warmup=1) == [Operator("x", "Conv", (5000.0, 6000.0))]


def test_tvm_s_own_functions_are_one_entry() -> None:
    calls = [("vm.builtin.alloc_storage", 3), ("conv_24_0", 50), ("vm.builtin.reshape", 4)]
    found = _profile_tvm.operators([calls, calls])
    assert found == [
        Operator("1 conv_24_0", "conv_24", (50.0, 50.0)),
        Operator("the machine's own functions", "vm.builtin", (7.0, 7.0)),
    ]
