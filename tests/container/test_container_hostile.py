"""A stage that attacks: what is inside decides nothing about what is outside, in this run and in later ones."""

import json

from tests.container.toy import Toy

WRITTEN_OVER = (".dvc/config", ".git/config", ".git/HEAD", "repro/cli.py", "repro/doctor.py", "src/repblend/store.py",
                "params.yaml", "dvc.yaml", "conf/multimodal.dvc.yaml", "requirements/lock.txt", "docker/contents.json")
NEW = (".dvc/config.local", ".git/hooks/post-checkout", "repro/sitecustomize.py", "sitecustomize.py", "json.py",
       "GNUmakefile", ".gitattributes", "profiles/x/dvc.yaml")
LINKS = ("logs", "runs.jsonl", "data/hub", "data/prepared", "checkpoints/locks", "checkpoints/x", "metrics/runs",
         "paper/run.html", "paper", "container.json", ".dvc/cache/files", ".dvc/inside", "src/linked", ".dvc/tmp/x")
ATTACK = "; ".join((
    f"for path in {' '.join((*WRITTEN_OVER, *NEW))}; do mkdir -p $(dirname $path)",
    "(echo attacked >> $path) && echo $path >> written", "mv $path $path.old && echo moved $path >> written", "done",
    f"for path in {' '.join(LINKS)}; do mkdir -p $(dirname $path)", "ln -s /etc $path", "done",
    "mv .git git", "mv src away", "rm -rf repro .git", "chmod -R 777 .", "cp written records/attack.txt"))
MAY_CHANGE = ("records/prepare.txt", "records/attack.txt", "dvc.lock", "container.json", "paper/run.html",
              "logs/dvc.log", "checkpoints/locks/", ".dvc/tmp/", ".dvc/cache/")


def clone_of(toy: Toy) -> dict[str, bytes | str]:
    """Every file of the clone with its content, every link with what it names; but for what a run may change."""
    found = {str(path.relative_to(toy.folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
             for path in sorted(toy.folder.rglob("*")) if path.is_symlink() or path.is_file()}
    return {name: content for name, content in found.items()
            if "__pycache__" not in name and not (name.startswith(MAY_CHANGE) and isinstance(content, bytes))}


def test_a_stage_changes_nothing_outside_of_what_it_declares(toy: Toy) -> None:
    toy.define(attack=ATTACK)
    before = clone_of(toy)
    output = toy.run("run", "attack", "--engine", "docker", expect=1)
    assert clone_of(toy) == before
    for name in ("logs", "runs.jsonl", "checkpoints/x", ".dvc/cache"):
        assert any(name in line and "not taken over" in line for line in output.splitlines()), (name, output)
    assert not any(path in toy.read("records/attack.txt").split() for path in (*WRITTEN_OVER, *NEW[:3]))
    again = toy.run("run", "attack", "--engine", "docker")
    assert clone_of(toy) == before and "not taken over" not in again
    for container in json.loads(toy.read("container.json"))["containers"]:
        assert container["isolation"]["writable"] == [
            "/tmp", "/workspace", "/workspace/.dvc/cache", "/workspace/.dvc/tmp"]
