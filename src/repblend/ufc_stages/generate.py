"""Stage `generate`: the compensators of one teacher, for every image index of the largest budget.

A smaller budget takes the first of them: an image index has random streams of its own.
"""

import shutil

from repblend.stages.provenance import provenance
from repblend.stages.resume import work_fingerprint
from repblend.store import JSON, write_json
from repblend.ufc.generation import Compensators, generate
from repblend.ufc.initial import InitialImages
from repblend.ufc_stages.context import UfcContext
from repblend.ufc_stages.inputs import normalisation_of, read_one_teacher

SECTIONS = ["compute", "data", "teachers", "generation"]
CURVE_POINTS = 50
"""Iterations, evenly spaced, whose losses are kept in the metrics."""


def run(context: UfcContext) -> None:
    """Write `compensators/<architecture>.safetensors` and `metrics/generate/<architecture>.json`."""
    params, paths, name = context.params, context.paths, context.cell
    inputs = [paths.metrics("initial"), paths.teacher(name)]
    checkpoint = paths.checkpoint("generate", name)
    found = generate(read_one_teacher(context, name), name, InitialImages(paths.initial), normalisation_of(context),
                     params.generation, params.seed, checkpoint, work_fingerprint(context, SECTIONS, inputs),
                     params.compute.device)
    found.write(paths.compensators(name))
    write_json(paths.metrics("generate", name), {
        "architecture": name, "num_compensators": found.values.shape[0] * found.values.shape[1],
        "curves": _curves(found), "provenance": provenance(context, SECTIONS, inputs)})
    shutil.rmtree(checkpoint, ignore_errors=True)


def _curves(found: Compensators) -> JSON:
    """Losses by iteration, means over all compensators."""
    iterations = next(iter(found.curves.values())).shape[-1]
    shown = sorted({place * (iterations - 1) // (CURVE_POINTS - 1) for place in range(CURVE_POINTS)})
    return {"iteration": shown} | {name: [round(float(curve[..., place].double().mean()), 6) for place in shown]
                                   for name, curve in found.curves.items()}
