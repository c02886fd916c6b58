"""Zero-shot classification of the test images by ten words (Table 5, at the scale of the embedded data).

Classes are the ten words that most test images have in a caption, but for short ones and those that name nothing. An
image that has exactly one of them belongs to its class, all others are left out. The prompt of a class is the word. An
image is classified by the largest cosine between its embedding and the prompts'. All this is this project's definition:
the paper's task is ImageNet-10.

Top-1 accuracy is in percent. A tie is lost: a wrong prompt with the same score is ranked ahead, as in retrieval.

Shapes: K images of the task, C classes, S seeds, D embedding width.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from repblend.evaluation.student import embed
from repblend.matching.losses import cosine_logits
from repblend.matching.student import PerModality, TwoTower
from repblend.store import JSON

NUM_WORDS = 10
MIN_LETTERS = 3
FUNCTION_WORDS = frozenset({"and", "for", "from", "into", "not", "off", "out", "over", "the", "under", "with",
                            "without"})
"""Words that name nothing an image could show."""


@dataclass(frozen=True)
class WordTask:
    """Which test images have which of the words."""

    words: list[str]
    """The C classes, most frequent first."""
    images: Tensor
    """(K,) int64: rows of the test images that belong to the task, ascending."""
    labels: Tensor
    """(K,) int64: each one's class."""

    @property
    def chance(self) -> float:
        """Top-1 accuracy in percent of a guess."""
        return 100 / len(self.words)

    @property
    def majority(self) -> float:
        """Top-1 accuracy in percent of always answering the largest class."""
        return 100 * int(torch.bincount(self.labels).max()) / len(self.labels)


def word_task(captions: Sequence[Sequence[str]], num_words: int = NUM_WORDS) -> WordTask:
    """Make the task from the test captions.

    Args:
        captions: every image's captions, cleaned; words are what white space separates.

    Raises:
        ValueError: the captions have fewer words, or no image has exactly one of them.
    """
    words_of = [{word for caption in image for word in caption.split()} for image in captions]
    words = frequent_words(words_of, num_words)
    members = [(row, found[0]) for row, has in enumerate(words_of)
               if len(found := [label for label, word in enumerate(words) if word in has]) == 1]
    if not members:
        raise ValueError(f"none of {len(captions)} test images has exactly one of the words "
                         f"{', '.join(words)}; take more test images")
    rows, labels = zip(*members, strict=True)
    return WordTask(words, torch.tensor(rows), torch.tensor(labels))


def frequent_words(words_of: Sequence[set[str]], num_words: int) -> list[str]:
    """Return the words of at least three letters that most images have, most frequent first, ties by the alphabet.

    Raises `ValueError` if there are fewer.
    """
    counts = Counter(word for words in words_of for word in words
                     if len(word) >= MIN_LETTERS and word not in FUNCTION_WORDS)
    if len(counts) < num_words:
        raise ValueError(f"the captions of {len(words_of)} test images have {len(counts)} words that name "
                         f"something, expected at least {num_words} to classify by; take more test images")
    return sorted(counts, key=lambda word: (-counts[word], word))[:num_words]


def top1_accuracy(scores_KC: Tensor, labels_K: Tensor) -> float:
    """Return how many images have their own class as the strict maximum, in percent.

    Args:
        scores_KC: (K, C) any float type, higher is better.
        labels_K: (K,) int64 classes.

    Raises:
        ValueError: a score is NaN or infinite.
    """
    if not torch.isfinite(scores_KC).all():
        raise ValueError("classification scores: found NaN or infinity, which no ranking can hold; "
                         "the model diverged: lower its learning rate")
    own_K1 = scores_KC.gather(1, labels_K[:, None])
    return 100 * int(((scores_KC >= own_K1).sum(1) == 1).sum()) / len(labels_K)


@dataclass
class WordScores:
    """Top-1 accuracies of all students at the scored epochs. Give `record` to the training as its callback."""

    student: TwoTower
    images: Tensor
    """(K, D_img) frozen features."""
    prompts: Tensor
    """(C, D_txt) frozen features."""
    labels: Tensor
    """(K,) int64."""
    epochs: list[int]
    """The epochs to score."""
    accuracies: dict[int, list[float]] = field(default_factory=dict)
    """Scored epoch -> seed -> percent."""

    def record(self, epoch: int, trained: Callable[[], PerModality], _loss: Tensor) -> None:
        """Score the students if this epoch is one to score; `trained` returns their heads, (S, P) each.

        Raises:
            ValueError: a score is not finite; the message names the student.
        """
        if epoch in self.epochs:
            heads = trained()
            with torch.no_grad():
                self.accuracies[epoch] = [self._accuracy(number, heads) for number in range(len(heads.img))]

    def _accuracy(self, number: int, heads: PerModality) -> float:
        own, device = PerModality(*(side[number:number + 1] for side in heads)), heads.img.device
        images, prompts = embed(self.images[None].to(device), self.prompts[None].to(device), own, self.student)
        try:
            return top1_accuracy(cosine_logits(images[0].cpu(), prompts[0].cpu(), temperature=1.0), self.labels)
        except ValueError as error:
            raise ValueError(f"student {number}: {error}") from error

    def held_out(self, chosen: Sequence[int]) -> JSON:
        """Return what a metrics file says of students whose epochs were chosen on validation.

        Args:
            chosen: each seed's epoch, two seeds at least.
        """
        seeds = [{"epoch": epoch, "accuracy": self.accuracies[epoch][seed]} for seed, epoch in enumerate(chosen)]
        found = [seed["accuracy"] for seed in seeds]
        return {"selected_on": "val", "seeds": seeds, "mean": {"accuracy": statistics.fmean(found)},
                "std": {"accuracy": statistics.stdev(found)}}
