"""Made-up records for tests of the report: plausible in form, meaningless in value, written into a test's folder."""

import json
import math
import shutil
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from repblend.params.grid import Grid
from repblend.params.reading import read_yaml
from repblend.report.grid_records import GridRecords

ROOT = Path(__file__).parents[2]
WHOLE_GRID = {
    "budgets": [50, 100], "coresets": ["random", "herding", "k-center", "forgetting"],
    "encoder_distilled": ["mtt-vl", "tesla-vl", "lors", "repblend-without-matching"],
    "distilled": ["repblend", "repblend-without-blending"], "encoder_coresets": ["random", "herding"],
    "compared_budgets": [100], "variants": {"noise": ["repblend-with-noise+low"], "rank": ["repblend+rank-2"],
                                            "learned": ["repblend+only-texts", "repblend+fixed-pairs"]},
    "all_variants": ["repblend-with-noise+low", "repblend+rank-2", "repblend+only-texts", "repblend+fixed-pairs"],
    "encoder_variants": [], "variants_budget": 50,
    "regimes": ["repblend+published", "repblend-without-blending+published"], "regime_budgets": [50],
    "pairs": {"large": {"image_encoder": "a-large-encoder", "text_encoder": "a-text-encoder"}},
    "encoder_pairs": ["large"], "larger_pairs": ["large"], "pair_distilled": ["repblend"],
    "pair_encoder_distilled": ["lors"], "pair_budgets": [50], "seeds": [1, 2], "seed_budgets": [50],
    "regime_seed_budgets": [50]}
"""Has cells for every table and figure."""
GRID = Grid.model_validate(WHOLE_GRID)
RECALLS = ("ir_at_1", "ir_at_5", "ir_at_10", "tr_at_1", "tr_at_5", "tr_at_10")
ALL_RECALLS = (*RECALLS, "mean_recall")
CORESETS = tuple(GRID.coresets)
ENCODER_DISTILLED = tuple(GRID.encoder_distilled)
DISTILLED = tuple(GRID.distilled)
LEARNED = (*ENCODER_DISTILLED, *reversed(DISTILLED))
METHODS = (*CORESETS, *LEARNED)
TRAINED = (*CORESETS, *(f"{coreset}+encoder-students" for coreset in GRID.encoder_coresets), *LEARNED)
FULL_DATA = ("full-data", "full-data+encoder-students")
BUDGETS = tuple(GRID.budgets)
COMPARED = tuple(GRID.compared_budgets)
MEASURES = (*(f"{name}_{modality}" for name in ("intra_modal_similarity", "concentration_ratio", "effective_rank")
              for modality in ("img", "txt")), "modality_gap")
ITERATIONS, VALIDATE_EVERY, NUM_SEEDS = 160, 20, 5


def write_workspace(root: Path, budgets: tuple[int, ...] = BUDGETS) -> Path:
    """Write a workspace with the project's notebook, the whole grid, and records of every cell at these budgets."""
    (root / "paper").mkdir(parents=True)
    write_grid(root, WHOLE_GRID)
    for name in ("report.ipynb", "claims.yaml"):
        shutil.copyfile(ROOT / "paper" / name, root / "paper" / name)
    shutil.copytree(ROOT / "paper" / "published", root / "paper" / "published")
    draw = np.random.default_rng(7)
    for name, content in made().items():
        write(root, name, content | {"provenance": provenance(name, None)})
    for budget in budgets:
        for method in CORESETS:
            write(root, f"select/{method}-{budget}", {
                "cell": {"method": method, "budget": budget}, "pairs": [{"image": "a.png", "caption": "a"}],
                "provenance": provenance("select", f"{method}-{budget}")})
        for place, method in enumerate(TRAINED):
            write(root, f"evaluate/{method}-{budget}", evaluation(draw, method, budget, 12 + 3 * place + budget / 20))
        for method in LEARNED:
            write(root, f"distill/{method}-{budget}", distillation(draw, method, budget))
            write_pictures(root, draw, f"{method}-{budget}", budget)
    for name in FULL_DATA:
        write(root, f"evaluate/{name}", evaluation(draw, name, 1695, 44.0) | {"stored_bytes": None})
    for stage in ("encode", "experts"):
        write(root, f"{stage}/large", made()[stage] | {"provenance": provenance(stage, "large")})
    for method in ("lors+large", "repblend+large"):
        write(root, f"evaluate/{method}-50", evaluation(draw, method, 50, 33.0))
    again = np.random.default_rng(9)
    for place, method in enumerate(TRAINED):
        for seed in GRID.seeds:
            name = f"{method}+seed-{seed}"
            write(root, f"evaluate/{name}-50", evaluation(again, name, 50, 14 + 3 * place + seed))
    write(root, "evaluate/chance", {"unit": "percent", "expected": {name: 0.31 for name in ALL_RECALLS},
                                    "provenance": provenance("bounds", None)})
    return root


def write_grid(root: Path, grid: dict[str, Any]) -> None:
    """Write the project's parameters with another grid."""
    (root / "params.yaml").write_text(json.dumps(read_yaml(ROOT / "params.yaml") | {"grid": grid}), "utf-8")


def made() -> dict[str, Any]:
    """Records of the stages without cells, but for where they come from."""
    shapes = {"images": [10, 3], "captions": [12, 2]}
    curves = {"loss": [1.0, 0.5], "accuracy": [0.1, 0.2]}
    experts = [{"expert": number, "num_snapshots": 3, "val": {name: 1.0 for name in ALL_RECALLS}, "curves": curves,
                "test": {name: 40.0 + 2 * number for name in ALL_RECALLS}} for number in range(2)]
    trained = {"experts": experts, "trajectory_bytes": 1000, "test": {
        "mean": {name: 41.0 for name in ALL_RECALLS}, "std": {name: math.sqrt(2) for name in ALL_RECALLS}}}
    return {
        "prepare": {"name": "openmoji", "counts": {"test": {"images": 10, "captions": 12}}, "packages": {},
                    "sha256": {}},
        "encode": {"image_encoder": "an-image-encoder", "text_encoder": "a-text-encoder", "sha256": {},
                   "train": {"views": [8, 10, 3], "captions": [12, 2]}, "val": shapes, "test": shapes},
        "experts": trained, "encoder-experts": trained}


def write_wider(root: Path) -> Path:
    """Write besides what not every run has: transfer and embeddings of every cell, and the benchmark's file."""
    draw = np.random.default_rng(8)
    for budget in BUDGETS:
        for method in METHODS:
            write(root, f"transfer/{method}-{budget}", transfer(draw, method, budget))
            write(root, f"embed/{method}-{budget}", embedding(draw, method, budget))
    (root / "benchmarks").mkdir()
    (root / "benchmarks" / "efficiency.json").write_text(json.dumps(efficiency()), "utf-8")
    return root


def wider_grid() -> Any:
    """A grid with the paper's other methods and with variants, whether or not `params.yaml` has them."""
    return SimpleNamespace(budgets=BUDGETS, coresets=("random", "herding", "k-center", "forgetting"),
                           encoder_distilled=("mtt-vl", "tesla-vl", "lors", "repblend-without-matching"),
                           distilled=("repblend", "repblend-without-blending"), variants_budget=50,
                           compared_budgets=(100,),
                           encoder_coresets=("random",), caveats={},
                           variants={"rank": ("repblend+rank-2", "repblend+rank-40"),
                                     "noise": ("repblend-with-noise+low", "repblend-with-noise+high")})


def wider_records(root: Path) -> GridRecords:
    """Write evaluations and distillations of every method and variant of the wider grid, and return the records."""
    draw = np.random.default_rng(9)
    records = GridRecords(root, wider_grid())
    for place, method in enumerate(records.methods):
        for budget in BUDGETS:
            write(root, f"evaluate/{method}-{budget}", evaluation(draw, method, budget, 10 + 2 * place))
            if method in records.learned:
                write(root, f"distill/{method}-{budget}", distillation(draw, method, budget))
                write_pictures(root, draw, f"{method}-{budget}", budget)
    for name in (name for names in records.grid.variants.values() for name in names):
        content = distillation(draw, name, 50)
        rank = int(name.rpartition("-")[2]) if "rank" in name else 10
        level = {"low": 0.1, "high": 1.0}.get(name.partition("+")[2], 0.5)
        content["provenance"]["parameters"] = {"distill": {
            "similarity_rank": rank, "noise_level": level, "optimiser": {"name": "adam"}}}
        write(root, f"distill/{name}-50", content)
        write(root, f"evaluate/{name}-50", evaluation(draw, name, 50, 20.0))
    base = read(root, "distill/repblend-50")
    base["provenance"]["parameters"] = {"distill": {
        "similarity_rank": 10, "noise_level": 0.5, "optimiser": {"name": "adam"}}}
    write(root, "distill/repblend-50", base)
    return records


def path_of(root: Path, name: str) -> Path:
    """The record of a stage, `prepare`, or of a cell, `evaluate/repblend-100`."""
    folder = root / "records"
    return folder / name / "record.json" if "/" in name else folder / f"{name}.json"


def write(root: Path, name: str, content: Any) -> None:
    path = path_of(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def read(root: Path, name: str) -> Any:
    return json.loads(path_of(root, name).read_text("utf-8"))


def provenance(stage: str, cell: str | None) -> dict[str, Any]:
    return {"stage": stage, "cell": cell, "seed": 0, "device": "cpu", "requirements_sha256": "0" * 64,
            "parameters": {"heads": {"width": 256}, "distill": {"choose": "best-validation"}},
            "libraries": {"torch": "2.14.1", "numpy": "2.4.6"},
            "inputs": {"features/test.safetensors": "a" * 64, "features/val.safetensors": "b" * 64},
            "command": " ".join(filter(None, ["python -m repblend.stages", stage, cell]))}


def evaluation(draw: np.random.Generator, method: str, budget: int, level: float) -> dict[str, Any]:
    learned = method in LEARNED
    return {"cell": {"method": method, "budget": budget}, "num_pairs": budget - learned,
            "stored_bytes": (budget - learned) * 50_688, **scores(draw, level),
            "provenance": provenance("evaluate", f"{method}-{budget}")}


def scores(draw: np.random.Generator, level: float) -> dict[str, Any]:
    curves = [[1.0, 2.0, 3.0]] * NUM_SEEDS
    return {"unit": "percent", "num_seeds": NUM_SEEDS, "scored_epochs": [0, 2, 4],
            "curves": {"val_mean_recall": curves, "test_mean_recall": curves},
            "protocols": {name: protocol(draw, split, level + bonus)
                          for name, split, bonus in (("held-out", "val", 0.0), ("faithful", "test", 0.5))}}


def protocol(draw: np.random.Generator, split: str, level: float) -> dict[str, Any]:
    seeds = []
    for _ in range(NUM_SEEDS):
        recalls = {name: max(0.0, float(level * factor + draw.normal())) for name, factor in
                   zip(RECALLS, (0.4, 1.1, 1.6, 0.4, 1.0, 1.5), strict=True)}
        seeds.append({"epoch": int(draw.integers(5)), **recalls, "mean_recall": statistics.fmean(recalls.values())})
    columns = {name: [seed[name] for seed in seeds] for name in ALL_RECALLS}
    return {"selected_on": split, "seeds": seeds,
            "mean": {name: statistics.fmean(values) for name, values in columns.items()},
            "std": {name: statistics.stdev(values) for name, values in columns.items()}}


def distillation(draw: np.random.Generator, method: str, budget: int) -> dict[str, Any]:
    iterations = np.arange(ITERATIONS)
    image, text = (0.5 + 0.5 * np.exp(-iterations / 40) + 0.03 * draw.normal(size=ITERATIONS) for _ in range(2))
    checks = np.arange(0, ITERATIONS + 1, VALIDATE_EVERY)
    recall = 18 + 10 * (1 - np.exp(-checks / 50)) + draw.normal(size=len(checks)) + (method == "repblend")
    other = {f"{name}_{side}": [0.5] * len(checks) for name in ("concentration_ratio", "effective_rank")
             for side in ("img", "txt")}
    course = {"iterations": ITERATIONS, "chosen_iteration": int(checks[recall.argmax()]),
              "curves": {"iteration": iterations.tolist(), "matching_loss": (image + text).tolist(),
                         "matching_loss_img": image.tolist(), "matching_loss_txt": text.tolist(),
                         "lr_img": (0.05 + 0.02 * np.sin(iterations / 50)).tolist(),
                         "lr_txt": (0.05 + 0.0002 * iterations).tolist()},
              "checkpoints": {"iteration": checks.tolist(), "val_mean_recall": recall.tolist(), **other,
                              "intra_modal_similarity_img": (0.07 + 0.0001 * checks).tolist(),
                              "intra_modal_similarity_txt": (0.01 * draw.normal(size=len(checks))).tolist(),
                              "modality_gap": (0.3 + 0.0005 * checks).tolist()}}
    long = "woman and man holding hands in front of a very large house with many windows and a garden"
    captions = ("cupcake", "money bag: $5 and $10", "japanese passing grade button", long) * 2
    specimens = [{"index": 12 * place, "initial_caption": caption, "nearest_captions": [
        {"caption": near, "cosine": 0.9 - 0.1 * rank} for rank, near in enumerate((caption, "b & <c>", "d"))]}
        for place, caption in enumerate(captions)]
    return {"cell": {"method": method, "budget": budget}, "num_pairs": budget - 1, "course": course,
            "specimens": specimens, "definitions": {"modality_gap": "distance of <the> centroids"},
            "provenance": provenance("distill", f"{method}-{budget}")}


def write_pictures(root: Path, draw: np.random.Generator, cell: str, budget: int) -> None:
    """Write what lies beside the record of a distillation."""
    folder = path_of(root, f"distill/{cell}").parent
    for place in range(8):
        for kind in ("initial", "distilled"):
            Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
                folder / f"pair-{12 * place}-{kind}.png")
    similarity = np.eye(budget - 1) + 0.1 * draw.normal(size=(budget - 1, budget - 1))
    np.save(folder / "similarity.npy", similarity.round(4).astype(np.float32))


def transfer(draw: np.random.Generator, method: str, budget: int) -> dict[str, Any]:
    icons = {"metric": "retrieval", "num_images": 80, "chance": {name: 1.5 for name in ALL_RECALLS},
             "protocols": scores(draw, 9.0)["protocols"]}
    words = {"metric": "top-1 accuracy", "words": ["a"], "num_images": 80, "chance": 12.5, "majority": 15.0,
             "protocols": {"held-out": accuracies(draw)}}
    return {"cell": {"method": method, "budget": budget}, "unit": "percent",
            "architectures": {name: scores(draw, 9.0) for name in ("resnet_small", "regnet_small")},
            "zero_shot": {"icons": icons, "ten-words": words},
            "provenance": provenance("transfer", f"{method}-{budget}")}


def accuracies(draw: np.random.Generator) -> dict[str, Any]:
    values = (30 + draw.normal(size=NUM_SEEDS)).tolist()
    return {"selected_on": "val", "seeds": [{"epoch": 2, "accuracy": value} for value in values],
            "mean": {"accuracy": statistics.fmean(values)}, "std": {"accuracy": statistics.stdev(values)}}


def embedding(draw: np.random.Generator, method: str, budget: int) -> dict[str, Any]:
    measures = {}
    for name in MEASURES:
        values = (0.5 + 0.01 * draw.normal(size=3)).tolist()
        measures[name] = {"values": values, "mean": statistics.fmean(values), "std": statistics.stdev(values)}
    points = draw.normal(size=(2, budget, 3)) + np.array([[[1.0, 0, 0]], [[-1.0, 0, 0]]])
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    return {"cell": {"method": method, "budget": budget}, "num_pairs": budget, "num_references": 3,
            "measures": measures,
            "sphere": {"images": points[0].tolist(), "texts": points[1].tolist(), "perplexity": 5.0, "iterations": 10},
            "definitions": {"modality_gap": "another distance", "effective_rank": "exponential of an entropy"},
            "provenance": provenance("embed", f"{method}-{budget}")}


def efficiency() -> dict[str, Any]:
    def cost(seconds: float) -> dict[str, Any]:
        return {"seconds_per_iteration": {"median": seconds, "min": 0.9 * seconds, "max": 1.2 * seconds, "rounds": 5},
                "peak_memory_mib": 300 * seconds, "trajectory_bytes": int(1e6 * seconds),
                "seconds_per_trajectory": 10 * seconds}
    return {"machine": "a made-up machine", "threads": 2, "budget": 100, "image_size": 64,
            "methods": {"lors": cost(8.0), "repblend": cost(2.0), "lors-double-backward": cost(20.0)}}
