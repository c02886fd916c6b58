"""The examples of CONTRIBUTING.md work: all are applied to a copy of the project, which then runs with them."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from ruamel.yaml import YAML

from tests.docs.documents import ROOT
from tests.end_to_end.workspace import CELLS, TINY, Workspace

RUN = """
import sys
from pathlib import Path
from repblend.runtime.harness import main, prepare_process
prepare_process()
from repblend.stages.pipeline import Context
for arguments in ("prepare", "encode", "experts", "select unusual-8", "distill repblend-full-8", "evaluate unusual-8",
                  "evaluate repblend-full-8"):
    if main(Context, "no such stage", arguments.split()):
        sys.exit(arguments)
from repblend.report.figures import FIGURES
from repblend.report.grid_records import GridRecords
Path("figures").mkdir()
FIGURES["stored"](GridRecords.of(Path.cwd()), Path("figures"))
"""


def examples(kind: str) -> list[tuple[str, str]]:
    """Return the file that each example of a kind belongs to, as its first line says, and its text."""
    blocks = re.findall(rf"^```{kind}\n# (\S+)\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)
    assert blocks
    return blocks


def parameters(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The project with all examples, as its own quickstart."""
    copy = Workspace.create(tmp_path_factory.mktemp("contributing") / "copy")
    (copy.folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    for path, code in examples("python"):
        with (copy.folder / path).open("a") as file:
            file.write(f"\n\n{code}")
    for path, text in examples("yaml"):
        assert path == "params.yaml"
        copy.change(parameters(text))
    return copy


@pytest.fixture(scope="module")
def ran(copy: Workspace) -> Workspace:
    """The same after a small run on images of its own."""
    data = re.search(r"^```yaml\n(data: .*?)^```", (ROOT / "repro/README.md").read_text(), re.M | re.S)[1]
    entries = copy.folder / "params.yaml"
    entries.write_text(re.sub(r"^data:\n(  .*\n)+", lambda _: data, entries.read_text(), flags=re.M))
    known = parameters((ROOT / "params.yaml").read_text())
    tiny = {section: values for section, values in TINY.items() if section in known}
    copy.change(tiny | {"data": {"num_val": 8, "num_test": 12, "image_size": 32}, "grid": TINY["grid"] | {
        "coresets": ["random", "unusual"], "distilled": ["repblend", "repblend-full"], "encoder_distilled": [],
        "encoder_coresets": [], "variants": {}, "all_variants": []}})
    copy.change({"distill": {"cells": CELLS | {"repblend-full-8": {}}}})
    draw_pictures(copy.folder / "data/mine", 60)
    copy.run("-m", "repro", "data", "check", "mine")
    copy.run("-c", RUN)
    return copy


def draw_pictures(folder: Path, num: int) -> None:
    folder.mkdir(parents=True)
    with (folder / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        for number in range(num):
            Image.new("RGB", (32, 32), (4 * number, 255 - 4 * number, number)).save(folder / f"{number}.png")
            rows.writerow([f"{number}.png", f"picture number {number}"])


def test_the_examples_fit_the_parameters_of_the_clone(copy: Workspace) -> None:
    planned = copy.run("-c", "from pathlib import Path; from repblend.stages.pipeline import Context, read_params\n"
                       "params = read_params(Path('params.yaml'))\n"
                       "print(*(f'{stage}@{cell}' for stage, cell in Context.pipeline.cells(params)))").split()
    assert {"distill@repblend-full-50", "evaluate@repblend-full-100", "select@unusual-100"} <= set(planned)


def test_a_method_and_a_coreset_are_evaluated_on_features_of_an_own_encoder(ran: Workspace) -> None:
    for cell, kind in (("repblend-full-8", "full"), ("unusual-8", "identity")):
        found = json.loads((ran.folder / f"records/evaluate/{cell}/record.json").read_text())
        assert found["num_pairs"] == (7 if kind == "full" else 8)
        assert json.loads((ran.folder / f"metrics/held-out/{cell}.json").read_text()).keys() >= {"mean", "ir1", "tr10"}
    assert json.loads((ran.folder / "records/encode.json").read_text())["train"]["views"][-1] == 48


def test_a_figure_is_drawn(ran: Workspace) -> None:
    assert {path.suffix for path in (ran.folder / "figures").glob("stored.*")} == {".pdf", ".png", ".svg"}
    assert "<!-- RepBlend, full matrix -->" in (ran.folder / "figures/stored.svg").read_text()


def test_a_published_data_set_is_checked_by_its_counts(copy: Workspace) -> None:
    folder = copy.folder / "few"
    draw_pictures(folder, 3)
    for split in ("train", "val", "test"):
        caption = "a" if split == "train" else ["a"]
        rows = [{"image": f"{['train', 'val', 'test'].index(split)}.png", "caption": caption, "image_id": split}]
        (folder / f"flickr8k_{split}.json").write_text(json.dumps(rows))
    assert re.search(r"6,?000", copy.run("-m", "repro", "data", "check", "flickr8k", str(folder), expect=1))
