"""Made-up metrics for tests of the report: plausible in form, meaningless in value, written into a test's folder."""

import base64
import io
import json
import shutil
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from repblend.params import read_params
from repblend.report.metrics import Metrics

ROOT = Path(__file__).parents[2]
GRID = read_params(ROOT / "params.yaml").grid
RECALLS = ("ir_at_1", "ir_at_5", "ir_at_10", "tr_at_1", "tr_at_5", "tr_at_10")
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
    """Write a workspace with the project's parameters and notebook, and metrics of every cell at these budgets."""
    (root / "paper").mkdir(parents=True)
    shutil.copyfile(ROOT / "params.yaml", root / "params.yaml")
    shutil.copyfile(ROOT / "paper" / "report.ipynb", root / "paper" / "report.ipynb")
    shutil.copytree(ROOT / "paper" / "published", root / "paper" / "published")
    draw = np.random.default_rng(7)
    for stage in ("prepare", "encode", "experts", "encoder-experts"):
        write(root, stage, {"name": "openmoji", "provenance": provenance(stage, None)})
    for budget in budgets:
        for method in CORESETS:
            write(root, f"select/{method}-{budget}", {"provenance": provenance("select", f"{method}-{budget}")})
        for place, method in enumerate(TRAINED):
            write(root, f"evaluate/{method}-{budget}", evaluation(draw, method, budget, 12 + 3 * place + budget / 20))
        for method in LEARNED:
            write(root, f"distill/{method}-{budget}", distillation(draw, method, budget))
            write(root, f"specimens/{method}-{budget}", specimens(draw, method, budget))
    for name in FULL_DATA:
        write(root, f"evaluate/{name}", evaluation(draw, name, 1695, 44.0) | {"stored_bytes": None})
    write(root, "evaluate/chance", {"unit": "percent", "expected": {name: 0.31 for name in (*RECALLS, "mean_recall")},
                                    "provenance": provenance("bounds", None)})
    return root


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
                           encoder_coresets=("random",),
                           variants={"rank": ("repblend+rank-2", "repblend+rank-40"),
                                     "noise": ("repblend-with-noise+low", "repblend-with-noise+high")})


def wider_metrics(root: Path) -> Metrics:
    """Write evaluations and distillations of every method and variant of the wider grid, and return the metrics."""
    draw = np.random.default_rng(9)
    metrics = Metrics(root, wider_grid())
    for place, method in enumerate(metrics.methods):
        for budget in BUDGETS:
            write(root, f"evaluate/{method}-{budget}", evaluation(draw, method, budget, 10 + 2 * place))
            if method in metrics.learned:
                write(root, f"distill/{method}-{budget}", distillation(draw, method, budget))
    for name in (name for names in metrics.variants.values() for name in names):
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
    return metrics


def write(root: Path, name: str, content: Any) -> None:
    path = root / "metrics" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def read(root: Path, name: str) -> Any:
    return json.loads((root / "metrics" / f"{name}.json").read_text("utf-8"))


def provenance(stage: str, cell: str | None) -> dict[str, Any]:
    return {"stage": stage, "cell": cell, "seed": 0, "threads": 2, "device": "cpu", "requirements_sha256": "0" * 64,
            "parameters": {"heads": {"width": 256},
                           "encode": {"image_encoder": "an image encoder", "text_encoder": "a text encoder"}},
            "libraries": {"torch": "2.14.1", "numpy": "2.4.6"},
            "inputs": {"features/test.safetensors": "a" * 64, "features/val.safetensors": "b" * 64},
            "command": " ".join(filter(None, ["python -m repblend.stages", stage, cell])),
            "run": f"metrics/runs/{stage}{'@' + cell if cell else ''}.json"}


def evaluation(draw: np.random.Generator, method: str, budget: int, level: float) -> dict[str, Any]:
    protocols = {name: protocol(draw, split, level + bonus)
                 for name, split, bonus in (("held-out", "val", 0.0), ("faithful", "test", 0.5))}
    learned = method in LEARNED
    return {"cell": {"method": method, "budget": budget}, "num_pairs": budget - learned, "unit": "percent",
            "stored_bytes": (budget - learned) * 50_688, "num_seeds": NUM_SEEDS, "scored_epochs": [0, 2, 4],
            "protocols": protocols, "provenance": provenance("evaluate", f"{method}-{budget}")}


def protocol(draw: np.random.Generator, split: str, level: float) -> dict[str, Any]:
    seeds = []
    for _ in range(NUM_SEEDS):
        recalls = {name: max(0.0, float(level * factor + draw.normal())) for name, factor in
                   zip(RECALLS, (0.4, 1.1, 1.6, 0.4, 1.0, 1.5), strict=True)}
        seeds.append({"epoch": int(draw.integers(5)), **recalls, "mean_recall": statistics.fmean(recalls.values())})
    columns = {name: [seed[name] for seed in seeds] for name in (*RECALLS, "mean_recall")}
    return {"selected_on": split, "seeds": seeds,
            "mean": {name: statistics.fmean(values) for name, values in columns.items()},
            "std": {name: statistics.stdev(values) for name, values in columns.items()}}


def distillation(draw: np.random.Generator, method: str, budget: int) -> dict[str, Any]:
    iterations = np.arange(ITERATIONS)
    image, text = (0.5 + 0.5 * np.exp(-iterations / 40) + 0.03 * draw.normal(size=ITERATIONS) for _ in range(2))
    checks = np.arange(0, ITERATIONS + 1, VALIDATE_EVERY)
    recall = 18 + 10 * (1 - np.exp(-checks / 50)) + draw.normal(size=len(checks)) + (method == "repblend")
    return {"cell": {"method": method, "budget": budget}, "num_pairs": budget - 1, "iterations": ITERATIONS,
            "chosen_iteration": int(checks[recall.argmax()]),
            "curves": {"iteration": iterations.tolist(), "matching_loss": (image + text).tolist(),
                       "matching_loss_img": image.tolist(), "matching_loss_txt": text.tolist(),
                       "lr_img": (0.05 + 0.02 * np.sin(iterations / 50)).tolist(),
                       "lr_txt": (0.05 + 0.0002 * iterations).tolist()},
            "checkpoints": {"iteration": checks.tolist(), "val_mean_recall": recall.tolist(),
                            "intra_modal_similarity_img": (0.07 + 0.0001 * checks).tolist(),
                            "intra_modal_similarity_txt": (0.01 * draw.normal(size=len(checks))).tolist(),
                            "modality_gap": (0.3 + 0.0005 * checks).tolist()},
            "provenance": provenance("distill", f"{method}-{budget}")}


def specimens(draw: np.random.Generator, method: str, budget: int) -> dict[str, Any]:
    long = "woman and man holding hands in front of a very large house with many windows and a garden"
    captions = ("cupcake", "money bag: $5 and $10", "japanese passing grade button", long) * 2
    pairs = [{"index": 12 * place, "initial_png": png(draw), "distilled_png": png(draw), "initial_caption": caption,
              "nearest_captions": [{"caption": near, "cosine": 0.9 - 0.1 * rank}
                                   for rank, near in enumerate((caption, "b & <c>", "d"))]}
             for place, caption in enumerate(captions)]
    similarity = np.eye(budget - 1) + 0.1 * draw.normal(size=(budget - 1, budget - 1))
    return {"cell": {"method": method, "budget": budget}, "pairs": pairs, "similarity": similarity.round(4).tolist(),
            "definitions": {"modality_gap": "distance of <the> centroids"},
            "provenance": provenance("distill", f"{method}-{budget}")}


def transfer(draw: np.random.Generator, method: str, budget: int) -> dict[str, Any]:
    protocols = {name: {"protocols": {each: protocol(draw, split, 9.0) for each, split in
                                      (("held-out", "val"), ("faithful", "test"))}}
                 for name in ("resnet_small", "regnet_small")}
    shapes = {"metric": "top-1 accuracy", "chance": 12.5, "protocols": {"held-out": accuracies(draw)}}
    other = {"metric": "mean of the six recalls", "chance": {name: 1.5 for name in (*RECALLS, "mean_recall")},
             "protocols": protocols["resnet_small"]["protocols"]}
    return {"cell": {"method": method, "budget": budget}, "unit": "percent", "architectures": protocols,
            "zero_shot": {"shapes": shapes, "other drawings": other},
            "provenance": provenance("transfer", f"{method}-{budget}")}


def accuracies(draw: np.random.Generator) -> dict[str, Any]:
    values = (30 + draw.normal(size=NUM_SEEDS)).tolist()
    return {"seeds": [{"epoch": 2, "accuracy": value} for value in values],
            "mean": {"accuracy": statistics.fmean(values)}, "std": {"accuracy": statistics.stdev(values)}}


def embedding(draw: np.random.Generator, method: str, budget: int) -> dict[str, Any]:
    measures = {}
    for name in MEASURES:
        values = (0.5 + 0.01 * draw.normal(size=3)).tolist()
        measures[name] = {"values": values, "mean": statistics.fmean(values), "std": statistics.stdev(values)}
    points = draw.normal(size=(2, budget, 3)) + np.array([[[1.0, 0, 0]], [[-1.0, 0, 0]]])
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    return {"cell": {"method": method, "budget": budget}, "num_references": 3, "measures": measures,
            "sphere": {"images": points[0].tolist(), "texts": points[1].tolist()},
            "definitions": {"modality_gap": "another distance", "effective_rank": "exponential of an entropy"},
            "provenance": provenance("embed", f"{method}-{budget}")}


def efficiency() -> dict[str, Any]:
    def cost(seconds: float) -> dict[str, Any]:
        return {"seconds_per_iteration": {"median": seconds, "min": 0.9 * seconds, "max": 1.2 * seconds, "rounds": 5},
                "peak_memory_mib": 300 * seconds, "trajectory_bytes": int(1e6 * seconds),
                "seconds_per_trajectory": 10 * seconds}
    return {"machine": "a made-up machine", "threads": 2, "budget": 100, "image_size": 64,
            "methods": {"lors": cost(8.0), "repblend": cost(2.0), "lors-double-backward": cost(20.0)}}


def png(draw: np.random.Generator) -> str:
    buffer = io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
