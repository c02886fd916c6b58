"""The released scripts' command lines: `python -m repblend.ufc COMMAND`, with the options and defaults that they have.

A command (`README.md` beside this file lists them) is a translation: its options become the `params.yaml` of a
workspace, the folder that it writes to, and the pipeline's own stages run there one after the other. What a script does
silently is said aloud: options that it ignores, and the split that its best epoch is chosen on.
"""

import argparse
import contextlib
import itertools
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from repblend.params.reading import read_yaml, validated
from repblend.runtime.harness import main as run_stage
from repblend.runtime.harness import prepare_process
from repblend.store import JSON, write_json
from repblend.ufc import released
from repblend.ufc.data import MANIFEST, NUM_CLASSES
from repblend.ufc.params import UfcCompute, UfcParams
from repblend.ufc.records import OneStudent, Validated
from repblend.ufc.stages.pipeline import UfcContext
from repblend.ufc.stages.setup import budget_of


class Released(NamedTuple):
    """What is not an option of the scripts, by dataset."""

    image_size: int
    num_val: int
    """Training images that the best epoch is chosen on."""
    architectures: tuple[str, ...]
    """Teachers in the order of the slots that they fill, of which `--M` takes the first."""
    teachers: JSON
    """What their training has of its own (README.md, Released habits)."""


DATASETS = {
    "digits": Released(8, 200, ("convnet-small", "resnet-small", "mobilenet-small"), {}),
    "cifar10": Released(32, 5000, tuple(released.CHECKPOINTS), {"std": [0.2470, 0.2435, 0.2616]}),
    "cifar100": Released(32, 5000, tuple(released.CHECKPOINTS), {}),
    "tiny-imagenet": Released(64, 10_000, tuple(released.CHECKPOINTS), {"epochs": 100}),
    "imagenet": Released(224, 10_000, ("torchvision-efficientnet_b0", "torchvision-resnet18",
                                       "torchvision-mobilenet_v2"), {}),
}
STUDENTS = {"mobilenetV2": "mobilenet_v2", "efficientnet": "efficientnet_b0", "shufflenet": "shufflenet_g2"}
"""Released name of `--networks` -> name in `repblend.ufc.networks`, where they differ."""
ARITHMETIC = get_args(UfcCompute.model_fields["arithmetic"].annotation)
IGNORED = ("lr", "weight_decay", "wandb_project", "wandb_api_key")
"""Options of validation that the released scripts take and never use."""


# Options.


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    made = argparse.ArgumentParser("python -m repblend.ufc", description=__doc__.split("\n")[0])
    commands = made.add_subparsers(dest="command", required=True)

    def command(name: str, about: str, datasets: list[str], num_teachers: int, **values: object,
                ) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        one.add_argument("--dataset", default=datasets[0], choices=datasets)
        one.add_argument("--M", type=int, default=num_teachers, help="teachers; those that made a set also label it "
                         "(released: always all four)")
        one.add_argument("--data-path", help="folder of the dataset; by default data/DATASET (not a released option)")
        one.add_argument("--teachers-path", default="pretrained", help="folder of the teachers (not a released option)")
        one.add_argument("--seed", type=int, default=0, help="not a released option")
        one.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="not a released option")
        one.add_argument("--arithmetic", default="tf32-convolutions", choices=ARITHMETIC, help="of a GPU; the release "
                         "names none, so it has PyTorch's default (not a released option)")
        one.add_argument("--threads", type=int, default=1, help="CPU threads (not a released option)")
        one.set_defaults(**values)
        return one

    teachers = command("teach", "train the teachers", ["cifar100", "cifar10", "tiny-imagenet", "digits"], 4, run=teach)
    teachers.add_argument("--epochs", type=int, help="by default 200, of Tiny-ImageNet 100")
    teachers.add_argument("--batch-size", type=int, default=128)
    teachers.add_argument("--lr", type=float, default=0.1)
    small = ["cifar100", "cifar10", "digits"]
    _generation(command("cifar", "make compensators on CIFAR (or the digits)", small, 4, run=generate_set,
                        transform="shift"), "cifar100-ipc10", "../syn_data", 4, 100)
    _generation(command("imgnet", "make compensators on ImageNet", ["imagenet"], 3, run=generate_set,
                        transform="crop-flip-shift"), "imagenet-ipc10", "./syn", 32, 1000)
    _validation(command("val-static", "train a student on stored labels", small, 4, run=validate, labels="static"))
    _validation(command("val-dyn", "train a student on the teachers' labels of every batch", small, 4, run=validate,
                        labels="dynamic"))
    return made


def _generation(command: argparse.ArgumentParser, run_name: str, folder: str, jitter: int, classes: int) -> None:
    command.add_argument("--init_path", default="init_images", help="the real images; drawn if it is not there")
    command.add_argument("--ipc", type=int, default=10, help="images per class")
    command.add_argument("--exp-name", default="generated_results")
    command.add_argument("--wandb-name", default=run_name, help="names a folder; nothing is sent anywhere")
    command.add_argument("--syn-data-path", default=folder)
    command.add_argument("--store-best-images", action="store_true", help="write the images, not only compensators")
    command.add_argument("--batch-size", type=int, default=classes, help="classes that share a compensator")
    command.add_argument("--iteration", type=int, default=1000)
    command.add_argument("--lr", type=float, default=0.1)
    command.add_argument("--jitter", type=int, default=jitter, help="largest shift in pixels")
    command.add_argument("--r-bn", type=float, default=0.05, help="weight of the BatchNorm statistics")
    command.add_argument("--first-bn-multiplier", type=float, default=10.0)
    command.add_argument("--images-at-once", type=int, help="bound of memory; by default all (not a released option)")
    command.add_argument("--compensators-at-once", type=int, default=1, help="not a released option")


def _validation(command: argparse.ArgumentParser) -> None:
    command.add_argument("--networks", default="resnet18", help="the student")
    command.add_argument("--epochs", type=int, default=200)
    command.add_argument("--batch-size", type=int, default=128)
    command.add_argument("--lr", type=float, help="ignored, as in the release: AdamW's rate is 0.001")
    command.add_argument("--temperature", type=float, default=30.0)
    command.add_argument("--weight-decay", type=float, help="ignored, as in the release: it is 0.01")
    command.add_argument("--syn-data-path", default="./syn")
    command.add_argument("--output-dir", default="./save")
    command.add_argument("--resume", "-r", action="store_true")
    command.add_argument("--check-ckpt", help="print what a result file says, and stop")
    command.add_argument("--ipc", type=int, default=5)
    command.add_argument("--wandb-project", help="ignored")
    command.add_argument("--wandb-api-key", help="ignored")
    command.add_argument("--wandb-name", default="cifar100-ipc10", help="ignored")


# Options as parameters.

COMMON: JSON = {
    "teachers": {"epochs": 200, "batch_size": 128, "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4,
                 "checkpoint_every": 1},
    "generation": {"iterations": 1000, "lr": 0.1, "lambda_bn": 0.05, "transform": "shift", "max_shift": 4,
                   "rounding": "released", "compensators_at_once": 1, "checkpoint_every": 100},
    "validation": {"labels": ["static", "dynamic"], "students": ["resnet18"], "epochs": {"static": 200, "dynamic": 200},
                   "batch_size": 128, "lr": 1e-3, "weight_decay": 0.01, "temperature": 30.0, "mixup_alpha": 0.8,
                   "last_image": "train", "score_every": 10, "num_seeds": 1, "checkpoint_every": 10}}
"""Values of the parameters where a command has no option for them."""


def parameters(options: argparse.Namespace) -> JSON:
    """Return the parameters that a command's options stand for, checked, as `params.yaml` has them; raises `ValueError`
    if there are not so many teachers, a value is out of its range, or files to import are missing.
    """
    dataset, digits = DATASETS[options.dataset], options.dataset == "digits"
    if not 1 <= options.M <= len(dataset.architectures):
        raise ValueError(f"--M {options.M}: expected 1 to {len(dataset.architectures)} for {options.dataset} "
                         f"({', '.join(dataset.architectures)})")
    architectures = dataset.architectures[:options.M]
    source = {"num_test": 400} if digits else {
        "training_images": "all", "folder": str(Path(options.data_path or f"data/{options.dataset}").resolve())}
    augmentation = {"augmentation": {"crop_padding": 1, "flip": 0.0} if digits else {"crop_padding": 4, "flip": 0.5}}
    weights = "torchvision" if options.dataset == "imagenet" else "trained"
    own: JSON = {
        "teachers": augmentation | dataset.teachers | {"architectures": list(architectures), "weights": weights},
        "generation": {"skipped_layers": {"efficientnet_b0": [1]} if "efficientnet_b0" in architectures else {}},
        "validation": augmentation}
    if options.run is teach:
        own["teachers"] |= {"batch_size": options.batch_size, "lr": options.lr} | (
            {} if options.epochs is None else {"epochs": options.epochs})
    elif options.run is generate_set:
        if options.batch_size < (num_classes := NUM_CLASSES[options.dataset]):
            raise ValueError(f"--batch-size {options.batch_size}: all {num_classes} classes share a compensator; the "
                             "released script for CIFAR fails with fewer, the one for ImageNet would make several. "
                             f"Give at least {num_classes}")
        own["generation"] |= {
            "iterations": options.iteration, "lr": options.lr, "lambda_bn": options.r_bn,
            "first_layer_weight": options.first_bn_multiplier, "transform": options.transform,
            "max_shift": options.jitter, "compensators_at_once": options.compensators_at_once,
            "images_at_once": options.images_at_once}
    else:
        own["validation"] |= {
            "labels": [options.labels], "students": [STUDENTS.get(options.networks, options.networks)],
            "epochs": {"static": options.epochs, "dynamic": options.epochs}, "batch_size": options.batch_size,
            "temperature": options.temperature}
    return validated(UfcParams, {
        "seed": options.seed,
        "compute": {"threads": options.threads, "device": options.device, "arithmetic": options.arithmetic},
        "data": {"name": options.dataset, "image_size": dataset.image_size, "num_val": dataset.num_val, **source},
        "budgets": [getattr(options, "ipc", 10)], **{name: COMMON[name] | own[name] for name in COMMON}},
        f"options of {options.command}").model_dump()


def import_teachers(params: JSON, options: argparse.Namespace) -> None:
    """Let the parameters name the files of `--teachers-path`, with their hash."""
    if params["teachers"]["weights"] == "trained":
        folder = Path(options.teachers_path).resolve()
        files = [released.teacher_file(folder, name) for name in params["teachers"]["architectures"]]
        params["teachers"]["import_from"] = {"path": str(folder), "sha256": released.imported_sha256(folder, files)}


# Commands: each writes `params.yaml` and runs stages.


def run_stages(root: Path, params: JSON, stages: Sequence[Sequence[str]]) -> bool:
    """Run stages in a workspace, one after the other, up to one that fails and says why; return whether none does."""
    write_json(root / "params.yaml", params)  # JSON is YAML
    with contextlib.chdir(root):
        return all(run_stage(UfcContext, "", stage) == 0 for stage in stages)


def teach(options: argparse.Namespace) -> bool:
    """Train the teachers that are not there yet, in the workspace `--teachers-path`."""
    root, params = Path(options.teachers_path), parameters(options)
    missing = []
    for name in params["teachers"]["architectures"]:
        if (path := released.teacher_file(root, name)).is_file():
            print(f"{name}: {path} is there already; delete it to train it again")
        else:
            missing.append(("teacher", name))
    return run_stages(root, params, [("prepare",), *missing])


def generate_set(options: argparse.Namespace) -> bool:
    """Make the compensators of a budget and, with `--store-best-images`, the images they are added to."""
    params, root = parameters(options), Path(options.syn_data_path) / options.wandb_name / options.exp_name
    import_teachers(params, options)
    if (folder := Path(options.init_path).resolve()).is_dir():
        budget = budget_of(options.ipc, UfcParams.model_validate(params))
        files = itertools.chain(*released.initial_files(folder, budget.num_real, budget.num_classes))
        params["data"]["initial_from"] = {"path": str(folder), "sha256": released.imported_sha256(folder, files)}
    names = params["teachers"]["architectures"]
    return run_stages(root, params, [
        ("prepare",), ("initial",), *(("teacher", name) for name in names), *(("generate", name) for name in names),
        *([("integrate", f"ufc-{options.ipc}")] if options.store_best_images else [])])


def validate(options: argparse.Namespace) -> bool:
    """Train one student on a set with the labels of the command, and write its accuracies to `--output-dir`.

    A set that was made here is validated in its workspace; one of the release becomes a workspace in `--output-dir`.
    """
    if options.check_ckpt:
        print(_told(OneStudent.read(Path(options.check_ckpt))))
        return True
    for name in IGNORED:
        if getattr(options, name) is not None:
            print(f"warning: --{name.replace('_', '-')} is accepted and ignored", file=sys.stderr)
    root, params, made = Path(options.syn_data_path), parameters(options), f"ufc-{options.ipc}"
    cell = f"ufc+{options.labels}+{params['validation']['students'][0]}-{options.ipc}"
    stages: list[tuple[str, ...]] = [("label", made)] if options.labels == "static" else []
    if (root / "params.yaml").is_file():
        if not (root / "sets" / made / MANIFEST).is_file():
            raise ValueError(f"{root / 'sets' / made}: no such set; give the --ipc that it was made with, or make it "
                             "with --store-best-images")
        made_with = read_yaml(root / "params.yaml")
        for option, own, given in (("dataset", made_with["data"]["name"], options.dataset),
                                   ("seed", made_with["seed"], options.seed)):
            if own != given:
                raise ValueError(f"{root}: was made with --{option} {own}, which its students have too, not {given}. "
                                 f"Give --{option} {own}, or make a set with the other")
        params = made_with | {name: params[name] for name in ("compute", "validation")}
    else:
        import_teachers(params, options)
        files = sorted(root.resolve().glob("new*/*.jpg"))
        params["generation"]["import_from"] = {"path": str(root.resolve()),
                                               "sha256": released.imported_sha256(root.resolve(), files)}
        root = Path(options.output_dir)
        teachers = [("teacher", name) for name in params["teachers"]["architectures"]]
        stages = [("prepare",), *teachers, ("integrate", made), *stages]
    if not options.resume:
        shutil.rmtree(root / "checkpoints" / "validate", ignore_errors=True)
    if not run_stages(root, params, [*stages, ("validate", cell)]):
        return False
    scores = Validated.read(root / "records" / "validate" / cell / "record.json").seeds[0]
    result = Path(options.output_dir) / f"{options.labels}-{options.networks}.json"
    scores.write(result)
    print(_told(scores), f"Written: {result}", sep="\n")
    return True


def _told(scores: OneStudent) -> str:
    return (f"Test accuracy: last {scores.last:.2f} %, best {scores.best:.2f} % (epoch chosen on held-out images), "
            f"best on test {scores.best_on_test:.2f} % (as the release reports it)")


def main(arguments: list[str]) -> int:
    """Run a command; return the exit code."""
    options = parser().parse_args(arguments)
    try:
        return 0 if options.run(options) else 1
    except (ValueError, OSError) as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    prepare_process()
    sys.exit(main(sys.argv[1:]))
