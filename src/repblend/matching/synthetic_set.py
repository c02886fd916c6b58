"""A synthetic set: what a coreset or a distillation leaves behind, and all that an evaluation gets (one file format).

The file is safetensors: `images` (N, 3, H, W), `texts` (N, D_txt), the parameters of the soft similarity if it has any,
`lr_img` and `lr_txt` (scalars); metadata holds the similarity's kind and whatever the maker wants to be known.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from repblend.matching.similarity import FullSimilarity, IdentitySimilarity, LowRankSimilarity, Similarity
from repblend.store import JSON
from repblend.tensors import read_tensors, write_tensors


@dataclass(frozen=True)
class SyntheticSet:
    """Image-text pairs, their soft similarity and the students' learning rates."""

    images: Tensor
    """(N, 3, H, W) float32, normalised with the image encoder's mean and standard deviation."""
    texts: Tensor
    """(N, D_txt) float32, in the text encoder's embedding space."""
    similarity: Similarity
    lr_img: float
    """Learning rate of a student's image head."""
    lr_txt: float
    """Learning rate of a student's text head."""
    metadata: JSON = field(default_factory=dict)
    """Method, budget, origin of the pairs: whatever explains the set."""

    @property
    def num_pairs(self) -> int:
        return len(self.images)

    @property
    def stored_bytes(self) -> int:
        """Bytes of everything a student needs: images, texts, similarity parameters and both learning rates."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors().values())

    def _tensors(self) -> dict[str, Tensor]:
        rates = {"lr_img": torch.tensor(self.lr_img), "lr_txt": torch.tensor(self.lr_txt)}
        return {"images": self.images, "texts": self.texts} | self.similarity.tensors() | rates

    def write(self, path: Path) -> None:
        """Write the set atomically.

        Raises:
            ValueError: a tensor is not finite.
        """
        write_tensors(path, self._tensors(), {"set": self.metadata, "similarity": _describe(self.similarity)})

    @classmethod
    def read(cls, path: Path) -> "SyntheticSet":
        """Read a set and check that its tensors belong together.

        Raises:
            ValueError: the file is missing, damaged, not a synthetic set, or its numbers of pairs disagree.
        """
        tensors, metadata = read_tensors(path)
        missing = {"images", "texts", "lr_img", "lr_txt"} - set(tensors)
        if missing or "similarity" not in metadata:
            raise ValueError(f"{path}: expected a synthetic set, but it lacks {sorted(missing) or 'its metadata'}. "
                             "Run the stage that writes it (`dvc repro`)")
        if len(tensors["images"]) != len(tensors["texts"]):
            raise ValueError(f"{path}: {len(tensors['images'])} images but {len(tensors['texts'])} texts; "
                             "expected as many of each. Delete the file and run `dvc repro`")
        return cls(tensors["images"], tensors["texts"], _restore(metadata["similarity"], tensors),
                   tensors["lr_img"].item(), tensors["lr_txt"].item(), metadata["set"])


def _describe(similarity: Similarity) -> JSON:
    if isinstance(similarity, LowRankSimilarity):
        return {"kind": "low-rank", "alpha": similarity.alpha}
    return {"kind": "full" if isinstance(similarity, FullSimilarity) else "identity"}


def _restore(description: JSON, tensors: dict[str, Tensor]) -> Similarity:
    match description["kind"]:
        case "low-rank":
            return LowRankSimilarity(tensors["similarity_diagonal"], tensors["similarity_left"],
                                     tensors["similarity_right"], description["alpha"])
        case "full":
            return FullSimilarity(tensors["similarity_full"])
        case _:
            return IdentitySimilarity(len(tensors["images"]))
