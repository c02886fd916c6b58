"""Stage `teacher`: one network trained on all real images, which compensators are made with and which labels images.

Also the upper bound of a student of the same architecture.
"""

from repblend.stages.provenance import provenance
from repblend.stages.resume import work_fingerprint
from repblend.store import JSON, write_json
from repblend.ufc.teachers import READY_MADE, torchvision_teacher, train_teacher, write_teacher
from repblend.ufc.validation import accuracy
from repblend.ufc_stages.context import UfcContext
from repblend.ufc_stages.inputs import check_architecture, normalisation_of, read_pinned_data

SECTIONS = ["compute", "data", "teachers"]


def run(context: UfcContext) -> None:
    """Train a teacher, or take it ready-made; write `teachers/<name>.safetensors` and `metrics/teacher/<name>.json`."""
    params, paths, name = context.params, context.paths, context.cell
    check_architecture(context, name)
    network, measures = _ready_made(context) if params.teachers.weights == "torchvision" else _trained(context)
    write_teacher(paths.teacher(name), name, network)
    write_json(paths.metrics("teacher", name), {
        "architecture": name, "unit": "percent", "num_parameters": sum(each.numel() for each in network.parameters()),
        **measures, "provenance": provenance(context, SECTIONS, [paths.metrics("prepare")])})
    paths.checkpoint("teacher", name).unlink(missing_ok=True)


def _trained(context: UfcContext) -> tuple:
    params, paths, name = context.params, context.paths, context.cell
    work = work_fingerprint(context, SECTIONS, [paths.metrics("prepare")])
    trained = train_teacher(name, read_pinned_data(context), normalisation_of(context), params.teachers, params.seed,
                            paths.checkpoint("teacher", name), work, params.compute.device)
    return trained.network, trained.measures


def _ready_made(context: UfcContext) -> tuple:
    device, splits = context.params.compute.device, read_pinned_data(context)
    network = torchvision_teacher(context.cell, context.paths.repository / READY_MADE, device)
    measures: JSON = {"curves": {"epoch": [], "loss": []}, "accuracy": {
        name: accuracy(network, split.images, split.labels, normalisation_of(context), device=device)
        for name, split in (("val", splits.val), ("test", splits.test))}}
    return network, measures
