"""What the first screen of the unimodal report shows besides `tables.claims`: images with compensators, and accuracy.

Nothing here imports matplotlib.
"""

import io
from pathlib import Path

from PIL import Image

from repblend.grid import Cell
from repblend.records.base import RUN_AGAIN
from repblend.report.screen import Level, Panel, Picture, Plot, Point, Series
from repblend.report.table import Number
from repblend.ufc.records import MadeSet, SetPictures, TaughtNetwork, Validated
from repblend.ufc.report.ufc_records import UfcRecords, colour, student_title, title

PICTURE_WORDS = ("real", "as stored", "difference")
"""What the pictures of an image are: with its compensator it is stored."""
SHOWN = 8
"""Classes that are pictured, at most."""
MEASURES = {"best": "Held-out: epoch chosen on held-out images", "last": "Last epoch"}
"""Measure of `Validated` -> what it is called."""


def largest(records: UfcRecords) -> tuple[SetPictures | None, Path]:
    """Return the pictures of UFC's set of the largest budget, if it was made, and their folder."""
    cell = Cell("ufc", max(records.params.budgets))
    found = records.find(MadeSet, cell)
    return found.pictures if found else None, records.paths.record("sets", cell).parent


def pictured(records: UfcRecords) -> list[Picture]:
    """Return the first real image of the first classes without and with the first teacher's compensator.

    Raises:
        ValueError: a file of pictures is missing, or is none.
    """
    pictures, folder = largest(records)
    made = next((slot for slot in pictures.slots if slot.architecture is not None), None) if pictures else None
    real = next((slot for slot in pictures.slots if made and (slot.architecture, slot.image) == (None, made.image)),
                None) if pictures else None
    if not (pictures and made and real):
        return []
    both = zip(*(_cut(folder / slot.png, pictures.num_classes)[:SHOWN] for slot in (real, made)), strict=True)
    words = f"{student_title(str(made.architecture))}'s compensator"
    return [Picture(before, after, f"image of class {number}", ((f"Class {number}", [f"with {words}"]),))
            for number, (before, after) in enumerate(both)]


def _cut(path: Path, num: int) -> list[bytes]:
    """Cut a file of images side by side into one PNG for each."""
    try:
        with Image.open(path) as strip:
            width = strip.width // num
            parts = [strip.convert("RGB").crop((width * place, 0, width * (place + 1), strip.height))
                     for place in range(num)]
    except OSError as error:
        raise ValueError(f"{path}: expected a PNG image ({error}). {RUN_AGAIN}") from error
    cut = []
    for part in parts:
        buffer = io.BytesIO()
        part.save(buffer, "png")
        cut.append(buffer.getvalue())
    return cut


def accuracy_plot(records: UfcRecords) -> Plot:
    """Return what every kind of student reaches at every budget, beside the teachers; raises as `UfcRecords.find`."""
    validation = records.params.validation
    panels = [Panel(f"{student_title(student)}; {words}" if len(validation.students) > 1 else words,
                    _series(records, student, measure), _teachers(records))
              for student in validation.students for measure, words in MEASURES.items()]
    return Plot("accuracy", "Top-1 accuracy on the test images (%)", "images per class",
                tuple(sorted(records.params.budgets)), tuple(panels), from_zero=False)


def _series(records: UfcRecords, student: str, measure: str) -> tuple[Series, ...]:
    lines: dict[str, list[Point]] = {}
    colours = {}
    for budget in sorted(records.params.budgets):
        for cell in (cell for cell in records.cells(budget) if cell.student == student):
            if found := records.find(Validated, cell):
                number = Number(getattr(found.mean, measure), getattr(found.std, measure) if found.std else None,
                                f"mean.{measure}")
                lines.setdefault(title(cell), []).append(Point(budget, number, records.file(Validated, cell)))
                colours[title(cell)] = colour(cell)
    return tuple(Series(name, colours[name], tuple(points)) for name, points in lines.items())


def _teachers(records: UfcRecords) -> tuple[Level, ...]:
    """The best of the teachers, which learn from all training images."""
    found = {name: each.accuracy.test for name in records.params.teachers.architectures
             if (each := records.find(TaughtNetwork, name))}
    if not found:
        return ()
    best = max(found, key=lambda name: found[name])
    return (Level(f"All training images (best teacher, {student_title(best)})",
                  Number(found[best], None, "accuracy.test"), records.file(TaughtNetwork, best)),)
