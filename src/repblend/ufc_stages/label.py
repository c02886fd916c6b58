"""Stage `label`: one stored label for every image of a set, the mean of the teachers' logits ("static labels")."""

from repblend.stages.provenance import provenance
from repblend.store import write_json, write_tensors
from repblend.ufc.integration import read_image_set
from repblend.ufc.validation import static_labels
from repblend.ufc_stages.context import UfcContext
from repblend.ufc_stages.inputs import normalisation_of, read_teachers

SECTIONS = ["compute", "data", "teachers"]
BATCH_SIZE = 500


def run(context: UfcContext) -> None:
    """Write `labels/<cell>.safetensors` and `metrics/label/<cell>.json`."""
    params, paths, cell = context.params, context.paths, context.cell
    images, teachers = read_image_set(paths.set(cell)), list(read_teachers(context).values())
    labels = static_labels(teachers, images, normalisation_of(context), BATCH_SIZE, params.compute.device)
    write_tensors(paths.labels(cell), {"logits": labels}, {"cell": cell.to_json()})
    inputs = [paths.metrics("sets", cell), *map(paths.teacher, params.teachers.architectures)]
    write_json(paths.metrics("label", cell), {
        "cell": cell.to_json(), "unit": "percent",
        "agreement": round(float((labels.argmax(1) == images.labels).double().mean()) * 100, 4),
        "stored_bytes": labels.numel() * labels.element_size(),
        "provenance": provenance(context, SECTIONS, inputs)})
