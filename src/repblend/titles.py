"""What methods, data sets and recalls are called in tables and figures, and the colour and marker of each method."""

from repblend.methods import METHODS
from repblend.params.grid import seed_apart

TITLES = {"random": "Random", "herding": "Herding", "k-center": "K-Center", "forgetting": "Forgetting",
          "full-data": "Full training set", "chance": "Chance"} | {
              name: method.title for name, method in METHODS.items()}
COLOURS = {"random": "#7f7f7f", "herding": "#56b4e9", "k-center": "#009e73", "forgetting": "#b5a300",
           "mtt-vl": "#882255", "tesla-vl": "#a6761d", "lors": "#e69f00", "repblend-without-matching": "#cc79a7",
           "repblend-without-blending": "#0072b2", "repblend": "#d55e00", "full-data": "#000000", "chance": "#555555"}
"""After Okabe and Ito: distinguishable with any colour vision."""
MARKERS = {"random": "o", "herding": "s", "k-center": "^", "forgetting": "<", "mtt-vl": "h", "tesla-vl": ">",
           "lors": "X", "repblend-without-matching": "p", "repblend-without-blending": "v", "repblend": "D"}
RECALL_TITLES = {"ir_at_1": "IR@1", "ir_at_5": "IR@5", "ir_at_10": "IR@10", "tr_at_1": "TR@1", "tr_at_5": "TR@5",
                 "tr_at_10": "TR@10", "mean_recall": "Mean"}
STUDENTS = {False: "heads", True: "encoder"}
"""What students train, by whether they train the whole image encoder."""
EMBEDDED = "openmoji"
"""The data set that comes with the packages."""
DATA_TITLES = {EMBEDDED: "OpenMoji", "flickr30k": "Flickr30K", "coco_karpathy": "MS-COCO", "cc3m": "LLaVA-cc3m"}


def title(method: str) -> str:
    """Return what a method is called; a `+variant` of it, but for the kind of its students, and a seed in brackets."""
    method, seed = seed_apart(method)
    base, _, variant = method.partition("+")
    marks = [variant] * (variant not in ("", "encoder-students")) + [f"seed {seed}"] * bool(seed)
    return f"{TITLES.get(base, base)} ({', '.join(marks)})" if marks else TITLES.get(base, base)


def full_title(method: str) -> str:
    """Return what a method is called where coresets stand that train students of either kind."""
    return f"{title(method)} (encoder students)" if method.endswith("+encoder-students") else title(method)


def data_title(name: str) -> str:
    """Return what a data set is called, or its name if it is none of the published ones."""
    return DATA_TITLES.get(name, name)


def colour(method: str) -> str:
    """Return the colour of a method or of a variant of it, as `#rrggbb`."""
    return COLOURS.get(method.partition("+")[0], "#cc79a7")


def marker(method: str) -> str:
    """Return the matplotlib marker of a method or of a variant of it."""
    return MARKERS.get(method.partition("+")[0], "P")
