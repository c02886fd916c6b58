"""Checkpoints of the model hub: which ones this project uses, where they lie, and what their bytes have to be.

    data/hub/models--OWNER--NAME/snapshots/COMMIT/FILE      the layout of the hub's own cache, at the clone's root
    conf/checkpoints/OWNER--NAME.json                       what the first fetch recorded; committed

One table has repository, commit, files and SHA-256, and a rule makes them of names that it does not hold. What no
public source gave is None in it: the first fetch asks the hub and records the answer, and from then on the record
counts. `repro checkpoints fetch` writes both; nothing here touches a network or imports torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from repblend.records.base import HubCheckpoint, Record, Sha256
from repblend.sections import Count
from repblend.store import repository_of, sha256

HUB = Path("data/hub")
RECORDS = Path("conf/checkpoints")
WEIGHTS, OPEN_CLIP_WEIGHTS = "model.safetensors", "open_clip_model.safetensors"
BYTES_PER_PARAMETER = 4
"""All checkpoints of the table hold float32."""
FILES_OF = {
    "timm": ("config.json", WEIGHTS),
    "transformers": ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"),
    "open_clip": ("open_clip_config.json", OPEN_CLIP_WEIGHTS),
}
"""Library -> what it reads of a repository that the table does not hold."""
LOCAL_PREFIXES = ("local-dir:", "/", "./", "../")
"""How a user's own folder begins, after the library's prefix."""


@dataclass(frozen=True)
class File:
    """A file of a repository."""

    name: str
    sha256: str | None = None
    """Of its bytes, in hexadecimal; None: not known before it is fetched."""
    num_bytes: int | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A repository of the model hub at one commit, and which of its files are used."""

    repository: str
    """`owner/name`."""
    revision: str | None
    """The full commit; None: that of the branch `main` on the day of the first fetch."""
    files: tuple[File, ...]
    architecture: str | None = None
    """The library's name for the model; None: the repository's own configuration says it."""
    license: str = "see its model card"
    num_parameters: int | None = None
    """Numbers in the weights file, to tell its size by where that is not known."""

    @property
    def is_pinned(self) -> bool:
        """Whether the commit and every file's SHA-256 are known."""
        return self.revision is not None and all(file.sha256 for file in self.files)

    @property
    def num_bytes(self) -> int | None:
        """What is to be downloaded in all, to within a few kilobytes; None: not known."""
        weights = BYTES_PER_PARAMETER * self.num_parameters if self.num_parameters else None
        sizes = [file.num_bytes or (weights if file.name.endswith(".safetensors") else 0) for file in self.files]
        return None if None in sizes else sum(filter(None, sizes))

    def completed(self, record: "FetchedCheckpoint") -> "Checkpoint":
        """Return the same with what a record of an earlier fetch knows and this does not."""
        files = tuple(file if file.sha256 or not (known := record.files.get(file.name))
                      else File(file.name, known.sha256, known.num_bytes) for file in self.files)
        return replace(self, revision=self.revision or record.revision, files=files)


class FetchedFile(Record):
    """A file as it was fetched."""

    sha256: Sha256
    num_bytes: Count | None


class FetchedCheckpoint(Record):
    """What the first fetch of a checkpoint found: the commit, and the files by their names."""

    revision: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    files: dict[str, FetchedFile]


def _timm(tagged: str, num_parameters: int, revision: str | None = None, sha256: str | None = None,
          num_bytes: int | None = None) -> Checkpoint:
    """A checkpoint that timm knows by `architecture.tag`, in timm's own namespace of the hub."""
    return Checkpoint(f"timm/{tagged}", revision, (File(WEIGHTS, sha256, num_bytes),), tagged, "Apache 2.0",
                      num_parameters)


_BERT_TOKENIZER = (
    File("tokenizer.json", "ce64fce797c24f68df90b40a3f74f579b336a493db14bd583fd520ea0d8c9a98", 466_062),
    File("tokenizer_config.json", "a025160ef0431f1a392f6f050c1310f4c5d9fb6f275932dbccba73c4d214bf10", 48),
)
_VIT_TINY = _timm("vit_tiny_patch16_224.augreg_in21k_ft_in1k", 5_717_416, "7d3afdd0cf93ad84d986eb2d6bcc5812ebd0b106",
                  "fecf81b492bd13ee7a5297cb74d1d417aac8bf7e1b7d96aed89c4691984587ed")
_BGE = Checkpoint(
    "BAAI/bge-base-en-v1.5", "a5beb1e3e68b9ab74eb54cfd186867f64f240e1a",
    (File("config.json", "bc00af31a4a31b74040d73370aa83b62da34c90b75eb77bfa7db039d90abd591", 777),
     File(WEIGHTS, "c7c1988aae201f80cf91a5dbbd5866409503b89dcaba877ca6dba7dd0a5167d7", 437_955_512),
     File("tokenizer.json", "d241a60d5e8f04cc1b2b3e9ef7a4921b27bf526d9f6050ab90f9267a1f9e5c66", 711_396),
     File("tokenizer_config.json", "9261e7d79b44c8195c1cada2b453e55b00aeb81e907a6664974b4d7776172ab3", 366)),
    license="MIT")
CHECKPOINTS = {
    "nfnet_l0": _timm("nfnet_l0.ra2_in1k", 35_074_488),
    "nf_resnet50": _timm("nf_resnet50.ra2_in1k", 25_557_032),
    "nf_regnet_b1": _timm("nf_regnet_b1.ra2_in1k", 10_223_984),
    "vit_tiny_patch16_224": _VIT_TINY,
    "vit_tiny_patch16_224_pooled": _VIT_TINY,
    "dino_vit_b16": _timm("vit_base_patch16_224.dino", 85_798_656),
    "dinov2_vit_b14": _timm(
        "vit_base_patch14_dinov2.lvd142m", 86_579_712, "4685c99dabffe5affac90bd99dbffd25801ae58d",
        "55cbb5d887b336d430e649c277b85a1429e724871f9d02ac16203235886d8c7b", 346_334_872),
    "bert-base-uncased": Checkpoint(
        "google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594",
        (File("config.json", "7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20", 570),
         File(WEIGHTS, "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3", 440_449_768),
         *_BERT_TOKENIZER), license="Apache 2.0"),
    "distilbert-base-uncased": Checkpoint(
        "distilbert/distilbert-base-uncased", "12040accade4e8a0f71eabdb258fecc2e7e948be",
        (File("config.json", "69c94b0222d5d1f4b0ad027ca7416cdafb98378cbbb8305d0bf47c9365c60c83", 483),
         File(WEIGHTS, "5e3f1108e3cb34ee048634875d8482665b65ac713291a7e32396fb18f6ff0063", 267_954_768),
         *_BERT_TOKENIZER), license="Apache 2.0"),
    "bge-base-en-v1.5": _BGE,
    "bge-base-en-v1.5_first-token": _BGE,
    # OpenAI's ViT-B/32, both towers, as timm republished it; it was trained with the quick form of GELU.
    "clip_vit_b32": Checkpoint(
        "timm/vit_base_patch32_clip_224.openai", "a6f597a30f7b82c51704746581f9a4e41421e878",
        (File(OPEN_CLIP_WEIGHTS, "e6d1bd7789aa45192b3bf90570a789b478bae1b74ebcce7eddd908e83a2b7c31", 605_143_284),),
        "ViT-B-32-quickgelu", "Apache 2.0 (OpenAI's original: MIT)"),
}
"""Encoder's name in the registry -> its checkpoint."""


def local_folder(encoder: str) -> Path | None:
    """Return the user's own folder that an encoder's name leads to, or None if it leads elsewhere."""
    library, _, rest = encoder.partition(":")
    return Path(rest.removeprefix("local-dir:")) if library in FILES_OF and rest.startswith(LOCAL_PREFIXES) else None


def checkpoint_of(encoder: str) -> Checkpoint | None:
    """Return the checkpoint of an encoder, or None if its name does not lead to the hub.

    Args:
        encoder: a name of `repblend.encoders.registry`.

    Raises:
        ValueError: the name starts with a library's prefix, but is followed by no repository's name.
    """
    if encoder in CHECKPOINTS:
        return CHECKPOINTS[encoder]
    library, _, rest = encoder.partition(":")
    if library not in FILES_OF or rest.startswith(LOCAL_PREFIXES):
        return None
    repository = rest.removeprefix("hf-hub:")
    if library == "timm" and repository and "/" not in repository:
        return Checkpoint(f"timm/{repository}", None, (File(WEIGHTS),), repository)
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ValueError(f"{encoder!r} names no repository of the model hub; expected {library}:OWNER/NAME")
    return Checkpoint(repository, None, tuple(map(File, FILES_OF[library])))


def snapshot(checkpoint: Checkpoint, root: Path) -> Path:
    """Return the folder of a checkpoint whose revision is known, in the clone at `root`."""
    assert checkpoint.revision
    return root / HUB / f"models--{_file_name(checkpoint)}" / "snapshots" / checkpoint.revision


def record_of(checkpoint: Checkpoint) -> Path:
    """Return where the first fetch records what the table leaves open of a checkpoint, relative to the clone."""
    return RECORDS / f"{_file_name(checkpoint)}.json"


def _file_name(checkpoint: Checkpoint) -> str:
    return checkpoint.repository.replace("/", "--")


def with_record(checkpoint: Checkpoint, root: Path) -> Checkpoint:
    """Return a checkpoint completed by what was recorded of it; raises `ValueError` if that is not as it is
    written.
    """
    path, mend = root / record_of(checkpoint), "Bring it back from git, or delete it and fetch the checkpoint again"
    return checkpoint.completed(FetchedCheckpoint.read(path, mend)) if path.is_file() else checkpoint


def fault(file: File, folder: Path) -> str | None:
    """Say what is wrong with a file of a snapshot; None if its bytes are the expected ones."""
    path = folder / file.name
    if not path.is_file():
        return f"{path}: no such file"
    if (found := sha256(path)) != file.sha256:
        return f"{path}: SHA-256 is {found}, expected {file.sha256}; the file is damaged or of another version"
    return None


def faults(checkpoint: Checkpoint, root: Path) -> list[str]:
    """Say all that keeps a checkpoint from being used: unknown hashes, missing and damaged files."""
    if not checkpoint.is_pinned:
        return [f"{root / record_of(checkpoint)}: no such file, and nothing else says the commit and SHA-256 of "
                f"{checkpoint.repository}"]
    folder = snapshot(checkpoint, root)
    return [found for file in checkpoint.files if (found := fault(file, folder))]


def is_here(checkpoint: Checkpoint, root: Path) -> bool:
    """Say whether every file is there, by name only."""
    known = with_record(checkpoint, root)
    return known.is_pinned and all((snapshot(known, root) / file.name).is_file() for file in known.files)


def checked_snapshot(encoder: str, workspace: Path) -> Path | None:
    """Return the folder of an encoder's checkpoint after the SHA-256 of every file in use was found right.

    Args:
        encoder: a name of the registry.
        workspace: the folder that stages run in.

    Returns:
        The folder, or None if the encoder does not come from the hub.

    Raises:
        ValueError: a file is missing or damaged, or its hash is not known; the message has the command that mends it.
    """
    checkpoint = checkpoint_of(encoder)
    if checkpoint is None:
        return None
    root = repository_of(workspace)
    pinned = with_record(checkpoint, root)
    if found := faults(pinned, root):
        raise ValueError(f"{'; '.join(found)}. Stages do not use the network: fetch the weights with "
                         f"`repro checkpoints fetch {encoder}`")
    return snapshot(pinned, root)


def identifying_files(encoders: Iterable[str], workspace: Path) -> list[Path]:
    """Return the files that say which weights encoders have, where neither the source nor a package does: what the
    first fetch recorded, and all files of a user's own folder.
    """
    found: list[Path] = []
    for name in encoders:
        if (folder := local_folder(name)) is not None:
            found += sorted((workspace / folder).rglob("*"))
        elif (checkpoint := checkpoint_of(name)) is not None:
            found.append(repository_of(workspace) / record_of(checkpoint))
    return [path for path in dict.fromkeys(found) if path.is_file()]


def checkpoints_used(encoders: Iterable[str], workspace: Path) -> dict[str, HubCheckpoint]:
    """Return which bytes the weights of encoders have that come from the hub, by encoder; what arrives as a package is
    in the hash of the requirements.
    """
    root = repository_of(workspace)
    used = {}
    for name in encoders:
        if checkpoint := checkpoint_of(name):
            pinned = with_record(checkpoint, root)
            assert pinned.revision
            used[name] = HubCheckpoint(repository=pinned.repository, revision=pinned.revision,
                                       sha256={file.name: file.sha256 for file in pinned.files if file.sha256})
    return used
