"""The released command lines: their options, the digits from end to end, and files of the release."""

import argparse
import contextlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from repblend.params.experts import ImportFrom
from repblend.streams import stream
from repblend.tensors import read_tensors
from repblend.ufc.__main__ import main, parameters, parser
from repblend.ufc.data import NORMALISATIONS, InitialImages
from repblend.ufc.generation import Compensators
from repblend.ufc.integration import read_image_set
from repblend.ufc.networks import build
from repblend.ufc.released import (
    check_imported,
    import_initial,
    import_teacher,
    imported_sha256,
    initial_files,
    teacher_file,
)
from tests.ufc.small import labelled

README = (Path(__file__).parents[2] / "src/repblend/ufc/README.md").read_text("utf-8")
RELEASED = {
    "cifar": "dataset M init_path ipc exp-name wandb-name syn-data-path store-best-images batch-size iteration lr "
             "jitter r-bn first-bn-multiplier",
    "val-static": "dataset M networks epochs batch-size lr temperature weight-decay syn-data-path output-dir resume "
                  "check-ckpt ipc wandb-project wandb-api-key wandb-name"}
RELEASED |= {"imgnet": RELEASED["cifar"], "val-dyn": RELEASED["val-static"]}
SCRIPTS = [
    "cifar --iteration 1000 --r-bn 1 --batch-size 100 --lr 0.25 --exp-name generated_results --wandb-name "
    "cifar100-ipc10 --store-best-images --syn-data-path syn/ --init_path init_images/c100/ --ipc 10 --dataset cifar100",
    "val-static --epochs 400 --batch-size 64 --ipc 10 --syn-data-path syn/cifar100-ipc10/generated_results "
    "--output-dir syn/cifar100-ipc10 --wandb-name cifar100-ipc10 --dataset cifar100 --networks resnet18",
    "val-dyn --epochs 80 --batch-size 64 --ipc 10 --syn-data-path syn/cifar100-ipc10/generated_results "
    "--output-dir syn/cifar100-ipc10 --wandb-name cifar100-ipc10 --dataset cifar100 --networks resnet18"]


@pytest.mark.parametrize("command", RELEASED)
def test_released_options_are_taken_with_their_names(command: str) -> None:
    options = vars(parser().parse_args([command]))
    assert {name.replace("-", "_") for name in RELEASED[command].split()} <= options.keys()


@pytest.mark.parametrize("command", ["teach", *RELEASED])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0 and "--dataset" in capsys.readouterr().out


def test_defaults_are_the_released_ones() -> None:
    made = parser()
    cifar, imgnet, static = (made.parse_args([name]) for name in ("cifar", "imgnet", "val-static"))
    assert (cifar.M, cifar.ipc, cifar.iteration, cifar.lr, cifar.jitter, cifar.r_bn) == (4, 10, 1000, 0.1, 4, 0.05)
    assert (imgnet.M, imgnet.jitter, imgnet.dataset, imgnet.transform) == (3, 32, "imagenet", "crop-flip-shift")
    assert cifar.batch_size == 100 and imgnet.batch_size == 1000, "all classes, since they share a compensator"
    assert (static.networks, static.epochs, static.batch_size, static.temperature) == ("resnet18", 200, 128, 30)


@pytest.mark.parametrize("command", ["cifar", "imgnet", "val-static", "val-dyn"])
def test_commands_compute_as_pytorch_does_by_default(command: str) -> None:
    assert parameters(parser().parse_args([command]))["compute"]["arithmetic"] == "tf32-convolutions"
    chosen = parser().parse_args([command, "--arithmetic", "float32"])
    assert parameters(chosen)["compute"]["arithmetic"] == "float32"


@pytest.mark.parametrize("script", SCRIPTS)
def test_released_command_lines_are_understood(script: str) -> None:
    assert parser().parse_args(script.split()).dataset == "cifar100"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's commands ran one after the other, with fewer steps."""
    folder = tmp_path_factory.mktemp("digits")
    commands = re.findall(r"^python -m repblend\.ufc (.*)$", README, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["teach", "cifar", "val-static", "val-dyn"]
    with contextlib.chdir(folder):
        for command in commands:
            fewer = re.sub("--iteration [0-9]+", "--iteration 4", re.sub("--epochs [0-9]+", "--epochs 2", command))
            assert main(fewer.split()) == 0
    return folder


def test_the_readme_lists_every_command() -> None:
    listed = re.findall(r"^\| .* \| `python -m repblend\.ufc ([a-z-]+)`", README, re.MULTILINE)
    subcommands = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert sorted(listed) == sorted(subcommands.choices)


def test_the_digits_go_through_all_commands(run_folder: Path) -> None:
    made = run_folder / "syn/digits-ipc3/generated_results"
    assert InitialImages(made / "initial").num_per_class == 2  # floor(3 / (2 / 10 + 1))
    assert Compensators.read(made / "compensators/resnet-small.safetensors").values.shape == (2, 3, 8, 8)
    assert len(read_image_set(made / "sets/ufc-3")) == 60
    for name in ("convnet-small", "resnet-small"):  # taken as they are, their hashes checked
        assert read_tensors(made / f"teachers/{name}.safetensors")[1] == {"architecture": name}
    for labels in ("static", "dynamic"):
        scores = json.loads((run_folder / f"syn/digits-ipc3/{labels}-convnet-small.json").read_text())
        assert scores["curves"]["epoch"] == [0, 1] and 0 <= scores["best"] <= scores["best_on_test"] <= 100


def test_a_set_of_the_release_is_validated_like_ours(run_folder: Path, tmp_path: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    own = run_folder / "syn/digits-ipc3/generated_results/sets/ufc-3"
    shutil.copytree(own, tmp_path / "released", ignore=shutil.ignore_patterns("*.json"))
    command = ["val-static", "--dataset", "digits", "--M", "2", "--epochs", "2", "--batch-size", "16", "--networks",
               "convnet-small", "--teachers-path", str(run_folder / "pretrained"), "--syn-data-path",
               str(tmp_path / "released"), "--output-dir", str(tmp_path / "out")]
    assert main([*command, "--ipc", "3"]) == 0
    assert torch.equal(read_image_set(tmp_path / "out/sets/ufc-3").images, read_image_set(own).images)
    results = [json.loads(path.read_text()) for path in (tmp_path / "out/static-convnet-small.json",
                                                         run_folder / "syn/digits-ipc3/static-convnet-small.json")]
    assert results[0] == results[1]
    assert main([*command, "--ipc", "4"]) == 1 and "expected 9 images" in capsys.readouterr().err
    link = tmp_path / "released/new000" / "class000_id001.jpg"
    link.unlink(missing_ok=True)
    link.symlink_to(own / "new000/class000_id001.jpg")
    assert main([*command, "--ipc", "3"]) == 1
    assert "class000_id001.jpg: is a link" in capsys.readouterr().err


def test_results_are_told_again_and_ignored_options_are_named(run_folder: Path,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["val-static", "--check-ckpt", str(run_folder / "syn/digits-ipc3/static-convnet-small.json")]) == 0
    assert "epoch chosen on held-out images" in capsys.readouterr().out
    made = run_folder / "syn/digits-ipc3/generated_results"
    assert main(f"val-static --dataset digits --M 2 --teachers-path {run_folder}/pretrained --lr 0.5 --ipc 9 "
                f"--syn-data-path {made} --output-dir {run_folder}/other".split()) == 1
    errors = capsys.readouterr().err
    assert "--lr is accepted and ignored" in errors and "give the --ipc that it was made with" in errors


@pytest.mark.parametrize(("options", "message"), [("--dataset digits --seed 1", "Give --seed 0"),
                                                  ("--dataset cifar10 --seed 0", "Give --dataset digits")])
def test_a_set_is_validated_as_what_it_was_made(options: str, message: str, run_folder: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    made = run_folder / "syn/digits-ipc3/generated_results"
    before = (made / "params.yaml").read_bytes()
    assert main(f"val-static {options} --M 2 --ipc 3 --syn-data-path {made} --output-dir {made}".split()) == 1
    assert message in capsys.readouterr().err and (made / "params.yaml").read_bytes() == before


@pytest.mark.parametrize(("arguments", "message"), [
    ("cifar --dataset digits --M 4", "expected 1 to 3 for digits"),
    ("cifar --dataset digits --M 1 --teachers-path nowhere", "convnet-small.safetensors: no such file"),
    ("cifar --dataset cifar100 --batch-size 50", "the released script for CIFAR fails with fewer, the one for ImageNet "
     "would make several. Give at least 100"),
    ("cifar --dataset cifar100 --teachers-path nowhere", "resnet18_E200/ckpt.pth: no such file")])
def test_wrong_settings_are_told_before_any_work(arguments: str, message: str, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 1
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_told_and_checked(run_folder: Path, monkeypatch: pytest.MonkeyPatch,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(run_folder)
    assert main(["teach", "--dataset", "digits", "--M", "1", "--epochs", "200"]) == 0
    assert "convnet-small.safetensors is there already; delete it to train it again" in capsys.readouterr().out


def test_released_tensors_become_the_bytes_that_they_were(tmp_path: Path) -> None:
    images, normalisation = labelled(2).images, NORMALISATIONS["cifar100"]
    for number, part in enumerate(images.split(4)):
        torch.save(normalisation.normalise(part), tmp_path / f"tensor_{number}.pt")

    def imported(num: int, name: str = "cifar100", size: int = 8) -> InitialImages:
        import_initial(initial_files(tmp_path, num, 4), tmp_path / name, 4, size, NORMALISATIONS[name])
        return InitialImages(tmp_path / name)

    found = imported(2)
    assert torch.equal(torch.cat([found.read(0), found.read(1)]), images)
    with pytest.raises(ValueError, match=r"no bytes .* is it of this data set"):
        imported(2, "cifar10")
    with pytest.raises(ValueError, match=r"expected a tensor \(4, 3, 9, 9\)"):
        imported(2, size=9)
    with pytest.raises(ValueError, match=r"tensor_2\.pt: no such file"):
        imported(3)
    torch.save({"not": "a tensor"}, tmp_path / "tensor_2.pt")
    with pytest.raises(ValueError, match=r"tensor_2\.pt: expected a tensor \(4, 3, 8, 8\)"):
        imported(3)
    assert not (tmp_path / "cifar10").exists()


def test_class_folders_give_their_first_images_by_name(tmp_path: Path) -> None:
    images = labelled(3)
    for number, (image, label) in enumerate(zip(images.images, images.labels.tolist(), strict=True)):
        (tmp_path / f"in/n{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"in/n{label}/{number:02d}.png")
    import_initial(initial_files(tmp_path / "in", 2, 4), tmp_path / "initial", 4, 8, NORMALISATIONS["cifar10"])
    assert torch.equal(InitialImages(tmp_path / "initial").read(1), images.images[4:8])
    with pytest.raises(ValueError, match="n0: 3 images, the budget asks for 4"):
        initial_files(tmp_path / "in", 4, 4)


def test_imported_files_are_those_that_the_parameters_say(tmp_path: Path) -> None:
    (tmp_path / "resnet18_E200").mkdir()
    file = tmp_path / "resnet18_E200/ckpt.pth"
    file.write_bytes(b"one")
    told = imported_sha256(tmp_path, [file])
    check_imported("teachers.import_from", ImportFrom(path="a", sha256=told), tmp_path, [file])
    for other in (ImportFrom(path="a"), ImportFrom(path="a", sha256="0" * 64)):
        with pytest.raises(ValueError, match=rf"teachers\.import_from\.sha256: .* has {told}"):
            check_imported("teachers.import_from", other, tmp_path, [file])
    file.write_bytes(b"two")
    with pytest.raises(ValueError, match="fetch the files again"):
        check_imported("teachers.import_from", ImportFrom(path="a", sha256=told), tmp_path, [file])


@pytest.mark.parametrize(("folder", "key"), [("shufflenet_E200", "state_dict"), ("shufflenet_E100", "model")])
def test_released_checkpoints_load_by_name(folder: str, key: str, tmp_path: Path) -> None:
    made = build("shufflenet_g2", 10, 32, stream(0, "tests"))
    (tmp_path / folder).mkdir()
    torch.save({key: {f"module.{name}": value for name, value in made.state_dict().items()}, "acc": 1.0},
               tmp_path / folder / "ckpt.pth")
    found = import_teacher(teacher_file(tmp_path, "shufflenet_g2"), "shufflenet_g2", 10, 32)
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in found.state_dict().items())
    with pytest.raises(ValueError, match="with 100 classes"):
        import_teacher(teacher_file(tmp_path, "shufflenet_g2"), "shufflenet_g2", 100, 32)
    (tmp_path / folder / "ckpt.pth").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="holds code is not read"):
        import_teacher(teacher_file(tmp_path, "shufflenet_g2"), "shufflenet_g2", 10, 32)
