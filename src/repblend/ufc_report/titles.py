"""What sets, labels and networks are called in tables and figures, and their colours."""

from repblend.ufc_stages.context import StudentCell

SETS = {"ufc": "UFC", "real": "UFC's real images alone", "random": "Random images"}
LABELS = {"static": "static labels", "dynamic": "dynamic labels", "hard": "own classes as labels"}
PAPERS = {("ufc", "static"): " (INFER)", ("ufc", "dynamic"): " (INFER+Dyn)"}
"""What the paper calls them."""
PUBLISHED = {"random": "Random", "ufc-static": "INFER", "ufc-dynamic": "INFER+Dyn", "sre2l": "SRe2L", "dc": "DC",
             "g-vbsm": "G-VBSM", "sre2l-static": "SRe2L, static labels", "g-vbsm-static": "G-VBSM, static labels",
             "dsa": "DSA", "kip": "KIP", "rfad": "RFAD", "mtt": "MTT", "seqmatch": "SeqMatch"}
DATASETS = {"digits": "digits", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "tiny-imagenet": "Tiny-ImageNet",
            "imagenet": "ImageNet-1k"}
STUDENTS = {"resnet18": "ResNet18", "resnet34": "ResNet34", "resnet50": "ResNet50", "resnet101": "ResNet101",
            "convnet128": "ConvNet128", "mobilenet_v2": "MobileNetV2", "efficientnet_b0": "EfficientNet-B0",
            "shufflenet_g2": "ShuffleNetG2"}
FOR_224_PIXELS = "torchvision-"
"""How names of networks begin that papers call the same as the variants for small images."""
COLOURS = {("random", "hard"): "#b9b9b9", ("random", "static"): "#7f7f7f", ("random", "dynamic"): "#4d4d4d",
           ("real", "static"): "#56b4e9", ("ufc", "static"): "#e69f00", ("ufc", "dynamic"): "#d55e00"}
"""After Okabe and Ito: told apart with any colour vision."""


def title(cell: StudentCell) -> str:
    """What students of a cell learn from."""
    return f"{SETS[cell.set.method]}, {LABELS[cell.labels]}{PAPERS.get((cell.set.method, cell.labels), '')}"


def student_title(name: str) -> str:
    """A network's name as papers write it."""
    return STUDENTS.get(name.removeprefix(FOR_224_PIXELS), name)


def colour(cell: StudentCell) -> str:
    return COLOURS[cell.set.method, cell.labels]
