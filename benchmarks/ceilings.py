"""What share of this device's matrix products and memory a training step of each method reaches: a roofline.

    python benchmarks/ceilings.py [--preset digits] [--rounds 20] [--steps 20] [--device cpu] [--json FILE]

The ceilings are measured: float32 matrix products at the sizes of the largest linear layer (and of 1024 squared, to
know the device by), and the copy of an array that no cache holds. The steps are those of the first epoch, with the
guide where a method has one, and with all that feeds them. Their floating-point operations are those of convolutions
and matrix products, forward and backward; their bytes are what every kernel reads and writes, as if no cache held
anything between two of them. So the true intensity is higher, and where caches hold a small network a step can pass
the limit that its bytes set. Ceilings and methods take turns; shares are those of each round, rounded down.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from measuring import (
    Spread,
    arguments,
    begin,
    in_turns,
    now,
    prepare_data,
    undisturbed,
    whole_batches,
)
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from silent_study.data.batches import RunData
from silent_study.settings import RunSettings
from silent_study.training.loop import Trainer
from silent_study.training.steps import Stepper

SQUARE = 1024
COPIED_BYTES = 2**28
SECONDS = 0.05
"""What one measurement of a ceiling takes at least."""


class ByteCounter(TorchDispatchMode):
    """Adds up the bytes that kernels read and write; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.name():
            changed = [
                value
                for argument, value in zip(func._schema.arguments, args, strict=False)
                if argument.alias_info is not None and argument.alias_info.is_write
            ]
            tensors = tree_leaves((args, kwargs, changed or result))
            self.total += sum(leaf.numel() * leaf.element_size() for leaf in tensors if isinstance(leaf, Tensor))
        return result


class Step(NamedTuple):
    """What one training step computes and moves."""

    operations: int
    bytes: int


class MethodTimer:
    """One method's training."""

    def __init__(self, settings: RunSettings, data: RunData, folder: Path, device: torch.device) -> None:
        self.trainer, self.stepper = Trainer(settings, data, folder, device), Stepper()
        self.steps = data.batches.number_of_batches(settings.batch_size)

    def count(self) -> Step:
        """The operations and bytes of the first step."""
        trainer = self.trainer
        with FlopCounterMode(display=False) as operations, ByteCounter() as moved:
            phase = trainer.begin_step()
            trainer.compute(phase, trainer.next_index(), trainer.alpha)
        return Step(operations.get_total_flops(), moved.total)

    def seconds(self) -> float:
        """Of a step, as an epoch takes them; always the first one, lest the guide's weight fall to nothing."""
        self.trainer.epoch = 0
        start = now(self.trainer.device)
        for _ in range(self.steps):
            self.stepper.advance([self.trainer])
        return (now(self.trainer.device) - start) / self.steps


def repeated(run: Callable[[], object], device: torch.device) -> Callable[[], float]:
    """A measure of the seconds that ``run`` takes, the mean of as many as a clock tells well."""

    def timed(times: int) -> float:
        start = now(device)
        for _ in range(times):
            run()
        return (now(device) - start) / times

    times = max(1, round(SECONDS / min(timed(1) for _ in range(5))))
    return partial(timed, times)


def product(rows: int, inner: int, columns: int, device: torch.device) -> Callable[[], float]:
    """A measure of a matrix product's GFLOP/s."""
    a, b, out = (torch.rand(shape, device=device) for shape in ((rows, inner), (inner, columns), (rows, columns)))
    seconds = repeated(lambda: torch.mm(a, b, out=out), device)
    return lambda: 2e-9 * rows * inner * columns / seconds()


def copy(device: torch.device) -> Callable[[], float]:
    """A measure of a copy's GB/s, read and written."""
    source = torch.rand(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    seconds = repeated(lambda: target.copy_(source), device)
    return lambda: 2e-9 * COPIED_BYTES / seconds()


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__.splitlines()[0], rounds=20, steps=20)
    options = parser.parse_args()
    device, plan, groups, document = begin(options)
    document["groups"] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare_data(groups, folder)
        for group, cells in groups.items():
            runs = {cell.method.name: undisturbed(plan.first_run(cell)) for cell in cells}
            first = next(iter(runs.values()))
            data = whole_batches(folder / cells[0].dataset, first, options.steps, device)
            timers = {name: MethodTimer(run, data, folder / group / name, device) for name, run in runs.items()}
            steps = {name: timer.count() for name, timer in timers.items()}
            layer = _largest_linear([timer.trainer.vae for timer in timers.values()])
            sizes = (first.batch_size, layer.in_features, layer.out_features)
            measures = [product(*sizes, device), product(SQUARE, SQUARE, SQUARE, device), copy(device)]
            matmul, square, copied, *seconds = in_turns(
                [*measures, *(timer.seconds for timer in timers.values())], options.rounds
            )
            ceilings = {_name(*sizes): matmul, _name(SQUARE, SQUARE, SQUARE): square, "copy, GB/s": copied}
            methods = {
                name: {"operations": step.operations, "bytes": step.bytes, "seconds": taken}
                for (name, step), taken in zip(steps.items(), seconds, strict=True)
            }
            document["groups"][group] = {"ceilings": ceilings, "methods": methods}
            _print_ceilings(group, ceilings)
            _print_methods(methods, matmul, copied)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def _largest_linear(modules: list[nn.Module]) -> nn.Linear:
    layers = [layer for module in modules for layer in module.modules() if isinstance(layer, nn.Linear)]
    return max(layers, key=lambda layer: layer.weight.numel())


def _name(rows: int, inner: int, columns: int) -> str:
    return f"[{rows}, {inner}] x [{inner}, {columns}], GFLOP/s"


def _print_ceilings(group: str, ceilings: dict[str, list[float]]) -> None:
    print(f"\n{group}")
    for name, values in ceilings.items():
        low, median, high = Spread.of(values)
        print(f"{name:44} {median:8.1f} {low:8.1f}-{high:.1f}")


def _print_methods(methods: dict[str, dict[str, Any]], matmul: list[float], copied: list[float]) -> None:
    title = f"{'median, quartiles':28} {'MFLOP':>7} {'MB':>6} {'FLOP/B':>6}"
    print(f"{title} {'GFLOP/s':>16} {'% of matmul':>15} {'% of limit':>15}")
    for name, method in methods.items():
        intensity = method["operations"] / method["bytes"]
        achieved = [1e-9 * method["operations"] / seconds for seconds in method["seconds"]]
        limits = [min(products, intensity * copies) for products, copies in zip(matmul, copied, strict=True)]
        shares = [
            Spread.of([100 * own / ceiling for own, ceiling in zip(achieved, ceilings, strict=True)])
            for ceilings in (matmul, limits)
        ]
        own = Spread.of(achieved)
        print(
            f"{name:28} {1e-6 * method['operations']:7.1f} {1e-6 * method['bytes']:6.1f} {intensity:6.1f}"
            f" {own.median:6.1f} {own.low:4.1f}-{own.high:4.1f}"
            + "".join(" {1:5d} {0:4d}-{2:4d}".format(*map(math.floor, share)) for share in shares)
        )


if __name__ == "__main__":
    main()
