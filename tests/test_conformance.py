"""What every plug-in that is found by listing must do. Exclusions are by name, with a reason."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

from harness.interfaces import EXPORTERS, MODELS, RUNNERS, Exporter, Runner, RunOptions
from harness.plan import static_options
from harness.registry import ROOT

LABELS = ("background", "one", "two", "three")


def _own(kind: str) -> list[str]:
    """Plug-ins of this repository (a test may have registered its own)."""
    return sorted(path.stem for path in (ROOT / kind).glob("*.py") if not path.stem.startswith("_"))


@pytest.mark.parametrize("name", _own("exporters"))
def test_exporters_say_what_they_are(name: str) -> None:
    exporter = EXPORTERS.get(name)
    assert issubclass(exporter, Exporter)
    assert exporter.name == name
    assert exporter.precision in ("float32", "int8")
    assert exporter.modules, "an exporter needs a toolchain"
    assert exporter.extra
    assert all(isinstance(v, str | int | float | bool | None) for v in exporter.options.values())
    assert exporter.calibrates == (exporter.precision == "int8")
    assert any(exporter.format in RUNNERS.get(runner).formats for runner in _own("runners")), (
        f"no runner runs {exporter.format}"
    )


@pytest.mark.parametrize("name", _own("runners"))
def test_runners_say_what_they_run(name: str) -> None:
    runner = RUNNERS.get(name)
    assert issubclass(runner, Runner)
    assert runner.name == name
    assert runner.extra
    if runner.measures_harness_only:
        return
    assert runner.formats
    refusal = runner().unsupported("no-such-format", RunOptions())
    assert refusal is not None
    assert "no-such-format" in refusal
    assert "mars" in (runner().unsupported(min(runner.formats), RunOptions(target="mars")) or "")
    on_this_machine = runner().unsupported(min(runner.formats), RunOptions())
    assert (on_this_machine is None) != runner.remote


@pytest.mark.parametrize("kind", ["models", "exporters", "runners"])
def test_plugin_files_open_with_what_they_are(kind: str) -> None:
    for name in _own(kind):
        path = ROOT / kind / f"{name}.py"
        assert path.read_text(encoding="utf-8").startswith('"""'), path


@pytest.mark.parametrize("kind", ["models", "exporters", "runners", "harness"])
def test_files_stay_readable(kind: str) -> None:
    longest = {p.name: len(p.read_text(encoding="utf-8").splitlines()) for p in _python(kind)}
    assert {name: lines for name, lines in longest.items() if lines > 400} == {}


def _python(kind: str) -> list[Path]:
    return sorted((ROOT / kind).rglob("*.py"))


@pytest.mark.parametrize("name", _own("models"))
def test_models_keep_their_contract(name: str) -> None:
    torch = pytest.importorskip("torch", reason="models are built in torch")
    factory = MODELS.get(name)
    spec = factory(LABELS)
    assert spec.name == name
    assert dict(spec.options) == static_options(name)
    keywords = {
        parameter.name
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert keywords == set(spec.options)
    assert spec.labels == LABELS
    assert spec.priors.dtype == np.float32
    assert ((spec.priors[:, :2] > 0) & (spec.priors[:, :2] <= 1)).all()
    assert (spec.priors[:, 2:] > 0).all()
    network = spec.build()
    assert not network.training
    with torch.inference_mode():
        image = torch.zeros(2, 3, spec.image.height, spec.image.width)
        logits, offsets = network(image)
    assert logits.shape == (2, len(spec.priors), len(LABELS))
    assert offsets.shape == (2, len(spec.priors), 4)
    assert logits.dtype == offsets.dtype == torch.float32
