"""The released scripts' command lines: `python -m repblend.ufc COMMAND`, with the options that they have.

| released | here |
|---|---|
| `ufc_generation/ufc_cifar.py` | `cifar` |
| `ufc_generation/ufc_imgnet.py` | `imgnet` |
| `ufc_validation/val_static.py` | `val-static` |
| `ufc_validation/val_dyn.py` | `val-dyn` |

Two more make what those read: `fetch` a dataset and `teach` its teachers. Defaults are the released ones.
"""

import argparse
import sys

from repblend.stages.harness import compute_deterministically
from repblend.ufc.commands import fetch_dataset, generate_set, teach, validate


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    made = argparse.ArgumentParser("python -m repblend.ufc", description=__doc__.split("\n")[0])
    commands = made.add_subparsers(dest="command", required=True)
    for name, help_, add in (
            ("fetch", "download and check a dataset", _fetch), ("teach", "train the teachers", _teach),
            ("cifar", "make compensators on CIFAR (or the digits)", _cifar),
            ("imgnet", "make compensators on ImageNet", _imgnet),
            ("val-static", "train a student on stored labels", _val_static),
            ("val-dyn", "train a student on the teachers' labels of every batch", _val_dyn)):
        add(commands.add_parser(name, help=help_, formatter_class=argparse.ArgumentDefaultsHelpFormatter))
    return made


def _shared(command: argparse.ArgumentParser, datasets: list[str], num_teachers: int) -> None:
    """Options of every command but `fetch`."""
    command.add_argument("--dataset", default=datasets[0], choices=datasets)
    command.add_argument("--M", type=int, default=num_teachers, help="teachers")
    command.add_argument("--data-path", help="folder of the dataset; by default data/DATASET (not a released option)")
    command.add_argument("--teachers-path", default="pretrained", help="folder of the teachers (not a released option)")
    command.add_argument("--seed", type=int, default=0, help="not a released option")
    command.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="not a released option")
    command.add_argument("--threads", type=int, default=1, help="CPU threads (not a released option)")


def _fetch(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dataset", required=True, choices=["cifar10", "cifar100", "tiny-imagenet"])
    command.add_argument("--data-path", help="where to unpack it; by default data/DATASET, where its profile looks")
    command.set_defaults(run=fetch_dataset, threads=1)


def _teach(command: argparse.ArgumentParser) -> None:
    _shared(command, ["cifar100", "cifar10", "tiny-imagenet", "digits"], 4)
    command.add_argument("--epochs", type=int, default=200)
    command.add_argument("--batch-size", type=int, default=128)
    command.add_argument("--lr", type=float, default=0.1)
    command.set_defaults(run=teach)


def _generation(command: argparse.ArgumentParser, run_name: str, folder: str, jitter: int) -> None:
    command.add_argument("--init_path", default="init_images", help="the real images; drawn if it is not there")
    command.add_argument("--ipc", type=int, default=10, help="images per class")
    command.add_argument("--exp-name", default="generated_results")
    command.add_argument("--wandb-name", default=run_name, help="names a folder; nothing is sent anywhere")
    command.add_argument("--syn-data-path", default=folder)
    command.add_argument("--store-best-images", action="store_true", help="write the images, not only compensators")
    command.add_argument("--batch-size", type=int, default=100, help="classes that share a compensator")
    command.add_argument("--iteration", type=int, default=1000)
    command.add_argument("--lr", type=float, default=0.1)
    command.add_argument("--jitter", type=int, default=jitter, help="largest shift in pixels")
    command.add_argument("--r-bn", type=float, default=0.05, help="weight of the BatchNorm statistics")
    command.add_argument("--first-bn-multiplier", type=float, default=10.0)
    command.add_argument("--images-at-once", type=int, help="bound of memory; by default all (not a released option)")
    command.add_argument("--compensators-at-once", type=int, default=1, help="not a released option")


def _cifar(command: argparse.ArgumentParser) -> None:
    _shared(command, ["cifar100", "cifar10", "digits"], 4)
    _generation(command, "cifar100-ipc10", "../syn_data", 4)
    command.set_defaults(run=generate_set, transform="shift")


def _imgnet(command: argparse.ArgumentParser) -> None:
    _shared(command, ["imagenet"], 3)
    _generation(command, "imagenet-ipc10", "./syn", 32)
    command.set_defaults(run=generate_set, transform="crop-flip-shift")


def _validation(command: argparse.ArgumentParser) -> None:
    _shared(command, ["cifar100", "cifar10", "digits"], 4)
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
    command.set_defaults(run=validate)


def _val_static(command: argparse.ArgumentParser) -> None:
    _validation(command)
    command.set_defaults(labels="static")


def _val_dyn(command: argparse.ArgumentParser) -> None:
    _validation(command)
    command.set_defaults(labels="dynamic")


def main(arguments: list[str]) -> int:
    """Run a command; return the exit code."""
    options = parser().parse_args(arguments)
    compute_deterministically(options.threads)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
