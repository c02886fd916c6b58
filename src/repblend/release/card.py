"""The data card of a released set: what it is, what it was measured to give, whose data it is from, how to use it."""

from pathlib import Path
from string import Template

from repblend.data.known import find_known
from repblend.report.titles import RECALL_TITLES
from repblend.store import JSON

EMBEDDED_LICENSE = {"openmoji": "cc-by-sa-4.0"}
"""Data set -> the licence's identifier on the Hugging Face hub."""
UNKNOWN_LICENSE = "unknown"

CARD = Template(Path(__file__).with_name("card.md").read_text(encoding="utf-8"))
MEASURED = Template("""Recall in percent on $dataset's test split, $num_seeds students, epoch chosen on validation,
mean and sample standard deviation:

| $heads |
|$rules
| $values |
""")
NOT_MEASURED = "Not evaluated: no metrics file of this set was there when it was exported.\n"


def card(facts: JSON, attribution: str) -> str:
    """Return the card as Markdown, with the header that the hub reads.

    Args:
        facts: what `release.json` holds.
        attribution: of the source data, Markdown; its headings are set lower.
    """
    return CARD.substitute(
        license=_license(facts["dataset"]), method=facts["title"], num_pairs=facts["num_pairs"],
        dataset=facts["dataset"], image_encoder=facts["encoders"]["image"], text_encoder=facts["encoders"]["text"],
        size=facts["image_shape"][-1], stored_bytes=f"{facts['stored_bytes']:,}", command=facts["command"],
        measured=_measured(facts), attribution=attribution.replace("# Attribution", "").strip())


def _license(dataset: str) -> str:
    """What the card's header says: a distilled set is under the licence of its source."""
    if known := find_known(dataset):
        return f"other\nlicense_name: {known.license_name}\nlicense_link: {known.license_link}"
    return EMBEDDED_LICENSE.get(dataset, UNKNOWN_LICENSE)


def _measured(facts: JSON) -> str:
    evaluation = facts["evaluation"]
    if not evaluation:
        return NOT_MEASURED
    held_out = evaluation["protocols"]["held-out"]
    values = [f"{held_out['mean'][name]:.1f} ± {held_out['std'][name]:.1f}" for name in RECALL_TITLES]
    return MEASURED.substitute(dataset=facts["dataset"], num_seeds=evaluation["num_seeds"],
                               heads=" | ".join(RECALL_TITLES.values()), rules="---|" * len(values),
                               values=" | ".join(values))
