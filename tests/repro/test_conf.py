"""The shipped profiles are what the parameters have to be, and hold what was published, written down here again."""

from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from dvc.repo import Repo

from repblend.grid import Cell, schedule_of
from repblend.params import Params
from repblend.params.distill import DistillSettings
from repro.pipeline import pipeline_for, yaml_text
from repro.profiles import SUITES, compose

ROOT = Path(__file__).parents[2]
NAMES = SUITES["paper"]
HEAD_METHODS = ("repblend", "repblend-without-blending")
ENCODER_METHODS = ("lors", "repblend-without-matching", "tesla-vl")
LEARNED = (*HEAD_METHODS, *ENCODER_METHODS)

RATES = {
    # profile, budget: images = texts, similarity, rank, alpha, starts, normaliser, temperature
    ("flickr30k", 100): (100, 10, 10, 3, 2, "separate", 0.07),
    ("flickr30k", 200): (1000, 10, 5, 1, 2, "separate", 0.07),
    ("flickr30k", 500): (1000, 100, 20, 0.01, 3, "separate", 0.07),
    ("coco", 100): (1000, 5, 10, 1, 2, "joint", 0.07),
    ("coco", 200): (1000, 50, 20, 1, 2, "joint", 0.07),
    ("coco", 500): (5000, 500, 40, 1, 2, "joint", 0.1),
}
"""The released scripts of RepBlend; LoRS's have the same."""
ITERATIONS = {("coco", 200): 2000}
BATCH_SIZE = {("flickr30k", 500): 40, ("coco", 500): 30}
"""Where LoRS's scripts differ from 3,000 iterations and 20 pairs per inner step."""


ANNOTATIONS = {
    "flickr30k": ("flickr30k_train.json", "flickr30k_val.json", "flickr30k_test.json"),
    "coco": ("coco_karpathy_train.json", "coco_karpathy_val.json", "coco_karpathy_test.json"),
    "cc3m": ("captions_trainzx2025.json", "captions_valzx2025.json", "captions_testzx2025.json"),
}


@pytest.fixture(scope="module")
def composed() -> dict[str, Params]:
    """The parameters of every shipped profile of this pipeline."""
    return {name: Params.model_validate(compose(ROOT, name)[1]) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_has_settings_for_every_cell_that_its_grid_asks_for_and_no_others(
        name: str, composed: dict[str, Params]) -> None:
    grid, cells = composed[name].grid, composed[name].distill.cells
    assert grid.budgets == [100, 200, 500] and grid.coresets == ["random", "herding", "k-center", "forgetting"]
    assert cells.keys() == {f"{method}-{budget}" for method in (*grid.distilled, *grid.encoder_distilled)
                            for budget in grid.budgets} | {f"{variant}-{grid.variants_budget}"
                                                           for variant in (*grid.all_variants, *grid.encoder_variants)}


@pytest.mark.parametrize(("name", "budget"), RATES)
@pytest.mark.parametrize("method", LEARNED)
def test_rates_and_similarity_of_a_budget_are_the_scripts(name: str, budget: int, method: str,
                                                          composed: dict[str, Params]) -> None:
    found = composed[name].distill.settings(f"{method}-{budget}")
    lr = found.optimiser.lr
    assert lr.images == lr.texts
    assert (lr.images, lr.similarity, found.similarity_rank, found.similarity_alpha, found.max_start, found.normaliser,
            found.temperature) == RATES[name, budget]


def test_profiles_of_the_papers_scale_compute_on_a_gpu(composed: dict[str, Params]) -> None:
    assert {params.compute.device for params in composed.values()} == {"cuda"}


def published(settings: DistillSettings) -> dict[str, Any]:
    """What all scripts have in common."""
    return {"K": settings.inner_steps, "M": settings.expert_span, "lr_lr": settings.optimiser.lr.rates,
            "eta": {settings.initial_lr_img, settings.initial_lr_txt}, "beta": settings.blend_alpha,
            "momentum": {*settings.optimiser.momentum.model_dump().values()}, "optimiser": settings.optimiser.name,
            "constant": (settings.optimiser.schedule, settings.optimiser.warm_up), "linear": settings.rate_space,
            "segments": settings.segments}


@pytest.mark.parametrize("name", NAMES)
def test_what_all_scripts_share(name: str, composed: dict[str, Params]) -> None:
    distill = composed[name].distill
    for cell in distill.cells:
        assert published(distill.settings(cell)) == {
            "K": 8, "M": 1, "lr_lr": 0.01, "eta": {0.1}, "beta": 1.0, "momentum": {0.5}, "optimiser": "sgd",
            "constant": ("constant", 0), "linear": "linear", "segments": 1}, cell


@pytest.mark.parametrize(("name", "budget"), RATES)
def test_repblend_and_lors_differ_where_their_scripts_do(name: str, budget: int, composed: dict[str, Params]) -> None:
    distill = composed[name].distill
    for method in LEARNED:
        found, lors = distill.settings(f"{method}-{budget}"), method in ENCODER_METHODS
        assert (found.iterations, found.batch_size, found.loss, found.logit_scale) == (
            ITERATIONS.get((name, budget), 3000) if lors else 3000,
            BATCH_SIZE.get((name, budget), 20) if lors else 20, "wbce", "reciprocal"), method
        assert found.validation_seeds == (5 if lors else 1)
        assert found.validate_every == (300 if (name, budget) == ("flickr30k", 500) else 50 if lors else 150)


@pytest.mark.parametrize("budget", [100, 200, 500])
@pytest.mark.parametrize("name", NAMES)
def test_mtt_vl_is_everywhere_as_its_readme_has_it_for_100_pairs(name: str, budget: int,
                                                                 composed: dict[str, Params]) -> None:
    found = composed[name].distill.settings(f"mtt-vl-{budget}")
    assert (found.loss, found.logit_scale, found.batch_size, found.iterations, found.max_start, found.normaliser,
            found.temperature) == ("infonce", "log", 100, 2000, 2, "separate", 0.07)
    assert (found.optimiser.lr.images, found.optimiser.lr.texts) == (1000, 1000)


@pytest.mark.parametrize(("name", "pairs"), [("flickr30k", 145_000), ("coco", 566_747)])
def test_experts_are_the_released_buffers_recipe(name: str, pairs: int, composed: dict[str, Params]) -> None:
    for experts in (composed[name].experts, composed[name].encoder_experts):
        assert (experts.num, experts.epochs, experts.batch_size, experts.lr, experts.momentum, experts.weight_decay,
                experts.temperature) == (20, 10, 128, 0.1, 0.0, 0.0, 0.07)
        # one per epoch: 11 with the one at the start
        assert (experts.snapshots_every, experts.steps_between_snapshots(pairs)) == ("epoch", pairs // 128)


@pytest.mark.parametrize("name", NAMES)
def test_the_traps_of_the_released_code_are_set_as_released(name: str, composed: dict[str, Params]) -> None:
    params, flickr = composed[name], name == "flickr30k"
    assert params.heads.dropout == params.encoder_experts.head_dropout == 0.1
    for experts in (params.experts, params.encoder_experts):
        assert (experts.text_mode, experts.cached_views) == ("train", 100 if flickr else 0)
    evaluate = params.evaluate
    assert (evaluate.protocol, evaluate.candidates, evaluate.batches) == ("faithful", 128, "subsets")
    for cell in params.distill.cells:
        found = params.distill.settings(cell)
        no_augmentation = cell.endswith("-500") and name != "flickr30k" and not cell.startswith("mtt-vl")
        assert found.initial_images == ("plain" if no_augmentation else "augmented"), cell
        assert (found.dropout_masks, found.initial_pairs) == ("different", "any")


@pytest.mark.parametrize("name", NAMES)
def test_students_are_scored_by_the_released_protocol(name: str, composed: dict[str, Params]) -> None:
    found = composed[name].evaluate
    assert (found.num_seeds, found.batch_size, found.momentum, found.weight_decay, found.temperature) == (
        5, 128, 0.9, 0.0005, 0.07)
    every = {schedule: getattr(found, schedule).epochs // getattr(found, schedule).scored_intervals
             for schedule in ("distilled", "encoder_students")}
    assert every == {"distilled": 20, "encoder_students": 10} and found.distilled.epochs == 100


@pytest.mark.parametrize("name", NAMES)
def test_students_of_mtt_vl_are_the_released_ones(name: str, composed: dict[str, Params]) -> None:
    evaluate = composed[name].evaluate
    for method in composed[name].grid.encoder_distilled:
        found = schedule_of(Cell(method, 100), evaluate)
        assert (found.epochs, found.scored_intervals, found.batch_size, found.batches, found.rates, found.decay) == (
            (50, 0, 64, "slices", "image", False) if method == "mtt-vl" else (100, 10, 128, "subsets", "own", True))


@pytest.mark.parametrize(("name", "encoders", "width"), [
    ("flickr30k", ("nfnet_l0", "bert-base-uncased"), 2304), ("coco", ("nfnet_l0", "bert-base-uncased"), 2304),
    ("cc3m", ("dino_vit_b16", "bge-base-en-v1.5_first-token"), 768)])
def test_heads_are_as_wide_as_the_image_features(name: str, encoders: tuple[str, str], width: int,
                                                 composed: dict[str, Params]) -> None:
    found = composed[name]
    assert (found.encode.image_encoder, found.encode.text_encoder) == encoders and found.heads.width == width
    assert found.transfer.head_width == "image-features"  # on other encoders as well


@pytest.mark.parametrize(("name", "words", "words_of"), [
    ("flickr30k", 60, {}), ("coco", 60, {"val": 30, "test": 30}), ("cc3m", 30, {})])
def test_images_and_captions_are_cut_as_released(name: str, words: int, words_of: dict[str, int],
                                                 composed: dict[str, Params]) -> None:
    data = composed[name].data
    assert (data.image_size, data.max_caption_words, data.max_caption_words_of) == (224, words, words_of)
    first = 10_000 if name == "cc3m" else None
    assert (data.max_train, data.max_val, data.max_test) == (None, first, first)


@pytest.mark.parametrize("name", NAMES)
def test_the_pipeline_of_a_profile_loads_with_a_stage_per_cell(name: str, tmp_path: Path) -> None:
    kind, content = compose(ROOT, name)
    brought = kind.brought(Params.model_validate(content))
    pipeline = pipeline_for(ROOT / kind.template, content, PurePosixPath("../.."), brought.dependencies)
    folder = tmp_path / "profiles" / name
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml_text(content))
    (folder / "dvc.yaml").write_text(yaml_text(pipeline))
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        stages = repo.index.stages
        deps = {Path(dep.fs_path).relative_to(tmp_path) for stage in stages for dep in stage.deps}
    coresets, learned, of_encoder, variants = 4, 6, 4, 3
    assert len(stages) == (7 + 3 * (2 * coresets + 2 * learned + of_encoder) + 2 * (coresets + learned)
                           + 2 * variants)
    outside = {path for path in deps if path.parts[0] != "profiles"}
    assert {path for path in outside if not (ROOT / path).exists()} == {
        *(Path("data") / name / file for file in ANNOTATIONS[name]),
        *(record for records in brought.records.values() for record in records)}
