"""How wide the sums of 8-bit products are on a CPU, which decides how many bits a side may have.

Without VNNI, x86 adds two products of an unsigned and a signed byte in 16 bits (``vpmaddubsw``),
which saturates: 2 × 255 × 127 is more than 32,767. With 7 bits on one side nothing can overflow:
ONNX Runtime's tools take them from the weights, torchao's from the activations.
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

from harness.machine import Machine


def saturates(machine: Machine) -> bool:
    """Whether 8 bits on both sides overflow on this CPU: x86 without VNNI, as far as is known."""
    x86 = machine.architecture in ("x86_64", "AMD64", "i686")
    return x86 and not {"avx512_vnni", "avx_vnni"} & set(machine.features or ())
