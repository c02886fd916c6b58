"""What the report's notebook says otherwise of a run that is not the embedded one.

The notebook is written for the embedded data set. Each pattern here is one of its passages that speaks of that set, and
occurs in it once.
"""

from repblend.report.metrics import Metrics
from repblend.report.titles import data_title

EMBEDDED = "openmoji"
INTRODUCTION = r"on its embedded data set: .*? encoders\."
ORDERINGS = r" Where that does not hold here, `paper/FINDINGS\.md` says .*"
SETTINGS = r"The settings of the method as it is were chosen on validation\."
VERIFICATION = r"`repro verify` runs the quickstart again .*? everything\."
LARGER_ENCODERS = r"Its values are in no source at hand, and it was not run\."


def words_for(metrics: Metrics) -> dict[str, str]:
    """Return pattern -> words for the run that the metrics are of; none for the embedded data set.

    Raises:
        ValueError: as `Metrics.dataset`.
    """
    name = metrics.dataset()
    if name in (None, EMBEDDED):
        return {}
    words = {
        INTRODUCTION: f"on {data_title(name)}{_encoders(metrics)}.",
        ORDERINGS: "",
        SETTINGS: "The settings of the method as it is are those of `params.yaml`; `conf/` says where each comes from.",
        VERIFICATION: f"`repro verify --profile {metrics.root.name}` runs everything again from a clean checkout and "
                      "compares the hash of every output.",
    }
    if metrics.is_of("cc3m"):
        words[LARGER_ENCODERS] = "Its values are in no source at hand; ours stand under Results."
    return words


def _encoders(metrics: Metrics) -> str:
    names = metrics.encoders()
    return f", with the frozen encoders {names['image_encoder']} and {names['text_encoder']}" if names else ""
