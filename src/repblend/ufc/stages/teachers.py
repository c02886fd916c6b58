"""Stages that train teachers and use them: `teacher`, `generate` and `label`.

A teacher is one network trained on all real images: compensators are made with it, it labels images, and it is the
upper bound of a student of its architecture.
"""

import shutil

from repblend.files import confirmed
from repblend.runtime.context import csv_of, write_cell
from repblend.runtime.provenance import provenance, work_fingerprint, write_metric
from repblend.tensors import write_tensors
from repblend.ufc import generation, records, released, training
from repblend.ufc.data import InitialImages
from repblend.ufc.integration import read_image_set
from repblend.ufc.stages import setup
from repblend.ufc.stages.pipeline import UfcContext
from repblend.ufc.validation import static_labels

LABELLED_AT_ONCE = 500
"""Images of a batch whose labels are stored."""
CURVE_POINTS = 50
"""Iterations, evenly spaced, whose losses are kept in records."""


def teacher(context: UfcContext) -> None:
    """Train a teacher, or take it ready-made; write `teachers/<name>.safetensors`, its record and its metric; raises
    `ValueError` if the parameters name no such teacher, its loss is not finite, or files to import are missing, damaged
    or others than the parameters say.
    """
    params, paths, name, device = context.params, context.paths, context.cell, context.params.compute.device
    setup.check_architecture(params, name)
    inputs, checkpoint = [paths.record("prepare")], paths.checkpoint("teacher", name)
    splits, normalisation = setup.read_pinned_data(context), setup.normalisation_of(params)
    curves: dict[str, list[float]] = {"epoch": [], "loss": []}
    if params.teachers.weights == "torchvision":
        network = training.torchvision_teacher(name, paths.repository / training.READY_MADE, device)
    elif source := params.teachers.import_from:
        folder = paths.repository / source.path
        files = {each: released.teacher_file(folder, each) for each in params.teachers.architectures}
        network = confirmed(
            source.sha256, lambda: released.check_imported("teachers.import_from", source, folder, files.values()),
            lambda: released.import_teacher(files[name], name, splits.train.num_classes, params.data.image_size,
                                            device))
    else:
        network, curves = training.train_teacher(name, splits, normalisation, params.teachers, params.seed, checkpoint,
                                                 work_fingerprint(context, inputs), device)
    accuracy = training.held_out_accuracies(network, splits, normalisation, device)
    training.write_teacher(paths.teacher(name), name, network.cpu())
    made = provenance(context, inputs)
    write_cell(paths.record("teacher", name), records.TaughtNetwork(
        architecture=name, num_parameters=sum(each.numel() for each in network.parameters()),
        accuracy=records.SplitAccuracies(**accuracy), curves=records.TeacherCurves.model_validate(curves),
        provenance=made), {"loss.csv": csv_of(list(curves), zip(*curves.values(), strict=True))})
    write_metric(paths.metric("held-out", f"teacher+{name}"),
                 {"accuracy": round(accuracy["test"], records.METRIC_DECIMALS)}, made)
    checkpoint.unlink(missing_ok=True)


def generate(context: UfcContext) -> None:
    """Make the compensators of one teacher, for every image index of the largest budget.

    A smaller budget takes the first of them: an image index has random streams of its own. Writes
    `compensators/<architecture>.safetensors` and its record.
    """
    params, paths, name = context.params, context.paths, context.cell
    inputs, checkpoint = [paths.record("initial"), paths.teacher(name)], paths.checkpoint("generate", name)
    found = generation.generate(setup.read_one_teacher(context, name), name, InitialImages(paths.initial),
                                setup.normalisation_of(params), params.generation, params.seed, checkpoint,
                                work_fingerprint(context, inputs), params.compute.device)
    found.write(paths.compensators(name))
    iterations = params.generation.iterations
    shown = sorted({place * (iterations - 1) // (CURVE_POINTS - 1) for place in range(CURVE_POINTS)})
    curves: dict[str, list[float]] = {"iteration": [*shown]}
    curves |= {part: [round(float(curve[:, place].double().mean()), 6) for place in shown]
               for part, curve in found.curves.items()}  # means over compensators
    write_cell(paths.record("generate", name), records.Generated(
        architecture=name, num_compensators=len(found.values),
        curves=records.GenerationCurves.model_validate(curves), provenance=provenance(context, inputs)),
        {"loss.csv": csv_of(list(curves), zip(*curves.values(), strict=True))})
    shutil.rmtree(checkpoint, ignore_errors=True)


def label(context: UfcContext) -> None:
    """Store one label for every image of a set, the mean of the teachers' logits ("static labels").

    Writes `labels/<cell>.safetensors` and its record.
    """
    params, paths, cell = context.params, context.paths, context.cell
    images, teachers = read_image_set(paths.set(cell)), list(setup.read_teachers(context).values())
    labels = static_labels(teachers, images, setup.normalisation_of(params), LABELLED_AT_ONCE, params.compute.device)
    write_tensors(paths.labels(cell), {"logits": labels}, {"cell": cell.to_json()})
    inputs = [paths.record("sets", cell), *map(paths.teacher, params.teachers.architectures)]
    write_cell(paths.record("label", cell), records.Labelled(
        cell=cell.record, agreement=round(float((labels.argmax(1) == images.labels).double().mean()) * 100, 4),
        stored_bytes=labels.numel() * labels.element_size(), provenance=provenance(context, inputs)), {})
