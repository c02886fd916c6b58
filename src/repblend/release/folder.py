"""The folder of a released set: what `datasets.load_dataset` opens, and the exact tensors beside it.

    README.md             the data card, made from `card.md`
    images/00000.png ...  the images as a screen can show them, values outside of its range cut off
    images/metadata.jsonl one row per pair: text embedding, nearest captions, soft similarity to every text
    set.safetensors       images, texts, similarity and learned rates as students get them, every bit
    release.json          shapes, rates, encoders, how the images are normalised, and the recorded evaluation

Shapes: N pairs, D_txt text width. Floats in JSON lines are float32 values written so that they are read back exactly.
"""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import torch
from torch import Tensor

from repblend.analysis.collapse import nearest_captions
from repblend.data.features import read_features
from repblend.data.images import png_bytes
from repblend.data.karpathy import read_annotations
from repblend.data.source import find_known
from repblend.encoders.registry import PUBLISHED_MEAN, PUBLISHED_STD
from repblend.escape import markdown, one_line, visible
from repblend.grid import Cell
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Params, read_params
from repblend.records.base import Traced
from repblend.records.outputs import Distilled, Selected
from repblend.records.results import Evaluation
from repblend.runtime.context import Paths
from repblend.runtime.harness import compute_deterministically
from repblend.runtime.locked import check_fit
from repblend.stages.pipeline import Context, at_pair
from repblend.stages.setup import text_encoder_of
from repblend.store import JSON, atomic_path, write_json
from repblend.titles import RECALL_TITLES, title

SET, FACTS = "set.safetensors", "release.json"
MEAN, STD = torch.tensor(PUBLISHED_MEAN), torch.tensor(PUBLISHED_STD)
"""Those that every encoder sees images with."""
HTML = re.compile(r"<(?!https?://[^\s<>]*>)")
"""What begins markup in Markdown, but for an address in brackets."""
EMBEDDED_LICENSE = {"openmoji": "cc-by-sa-4.0"}
"""Data set -> the licence's identifier on the Hugging Face hub."""


@dataclass(frozen=True)
class Release:
    """A set with all that its folder tells of it."""

    path: Path
    """The set's file in the workspace."""
    synthetic: SyntheticSet
    caption_features: Tensor
    """(M, D_txt) embeddings of the captions that the set was made from."""
    captions: Sequence[str]
    """These M captions."""
    facts: JSON
    """What `release.json` says besides what the set itself says."""
    attribution: str
    """Whom the source data is from and under which licence, Markdown."""

    @classmethod
    def of(cls, cell: Cell, paths: Paths) -> "Release":
        """Gather what a cell's folder holds.

        Raises:
            ValueError: the set was not made, a file that tells of it is missing or damaged, or one is not what dvc.lock
                records and params.yaml asks for.
        """
        params, paths = at_pair(read_params(paths.params), paths, cell)
        path, evaluation = paths.set(cell), paths.record("evaluate", cell)
        synthetic = SyntheticSet.read(path)
        stage, kind = ("select", Selected) if cell.is_coreset else ("distill", Distilled)
        if not (record := paths.record(stage, cell)).is_file():
            raise ValueError(f"{record}: no such file, so nothing says how {cell} was made. Run `repro run "
                             f"{stage}@{cell}`")
        check_fit(paths.root, Context.pipeline, [path, record, evaluation, paths.data, paths.features])
        made: Traced = kind.read(record)
        facts = {
            "cell": cell.to_json(), "title": title(cell.method), "dataset": params.data.name,
            "encoders": {"image": params.encode.image_encoder, "text": params.encode.text_encoder},
            "command": made.provenance.command, "provenance": made.provenance.to_json(),
            "evaluation": Evaluation.read(evaluation).to_json() if evaluation.is_file() else None}
        train = read_annotations(paths.data, params.data.name, params.data.max_caption_words).train
        captions = [caption for image in train for caption in image.captions]
        embeddings = (read_features(paths.features).train_texts if paths.features.is_dir()
                      else _encoded(captions, params))
        return cls(path, synthetic, embeddings, captions, facts,
                   (paths.data / "ATTRIBUTION.md").read_text(encoding="utf-8"))

    def write(self, folder: Path) -> None:
        """Write the folder, all of it or nothing; an existing one is replaced.

        Raises:
            ValueError: the folder exists and is no released set.
            OSError: the disk is full.
        """
        if folder.exists() and not (folder / FACTS).is_file():
            raise ValueError(f"{folder}: exists and is no released set (it has no {FACTS}). Name a folder that does "
                             "not exist yet, or remove this one")
        synthetic = self.synthetic
        facts = self.facts | {
            "num_pairs": synthetic.num_pairs, "image_shape": list(synthetic.images.shape[1:]),
            "text_width": synthetic.texts.shape[1], "lr_img": synthetic.lr_img, "lr_txt": synthetic.lr_txt,
            "stored_bytes": synthetic.stored_bytes, "image_mean": MEAN.tolist(), "image_std": STD.tolist(),
            "set": synthetic.metadata}
        with atomic_path(folder) as aside:
            images = aside / "images"
            images.mkdir(parents=True)
            for number, image in enumerate(synthetic.images):
                (images / _file_name(number)).write_bytes(png_bytes(image, MEAN, STD))
            rows = (json.dumps(row, ensure_ascii=False) for row in self._rows())
            (images / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
            shutil.copyfile(self.path, aside / SET)
            write_json(aside / FACTS, facts)
            (aside / "README.md").write_text(card(facts, self.attribution), encoding="utf-8")

    def _rows(self) -> Iterator[JSON]:
        nearest = nearest_captions(self.synthetic.texts, self.caption_features, self.captions)
        similarity = self.synthetic.similarity.matrix()
        for number, (text, captions, row) in enumerate(zip(self.synthetic.texts, nearest, similarity, strict=True)):
            yield {"file_name": _file_name(number), "text_embedding": text.tolist(),
                   "nearest_captions": [each["caption"] for each in captions],
                   "nearest_cosines": [each["cosine"] for each in captions], "similarity": row.tolist()}


def _encoded(captions: Sequence[str], params: Params) -> Tensor:
    """Return the features (M, D_txt) that stage `encode` has of captions, without those of images, which take longest.
    """
    compute_deterministically(params.compute.threads)
    return text_encoder_of(params).encode(captions).to("cpu", getattr(torch, params.encode.storage))


def _file_name(number: int) -> str:
    return f"{number:05d}.png"


def card(facts: JSON, attribution: str) -> str:
    """Return the data card as Markdown, with the header that the hub reads: what the set is, what it was measured to
    give, whose data it is from, how to use it.

    Args:
        facts: what `release.json` holds.
        attribution: of the source data, Markdown; its heading is left out.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    environment.filters |= {"plain": markdown, "code": lambda words: one_line(words).replace("`", "'")}
    template = environment.from_string(Path(__file__).with_name("card.md").read_text(encoding="utf-8"))
    dataset, evaluation = facts["dataset"], facts["evaluation"]
    license_ = EMBEDDED_LICENSE.get(dataset, "unknown")  # of its source, which a distilled set is under too
    if known := find_known(dataset):
        license_ = f"other\nlicense_name: {known.license_name}\nlicense_link: {known.license_link}"
    return template.render(facts, license=license_, recalls=RECALL_TITLES,
                           held_out=evaluation and evaluation["protocols"]["held-out"],
                           attribution=HTML.sub("&lt;", visible(attribution)).replace("# Attribution", "").strip())
