"""Import of expert trajectories by the stages `experts` and `encoder-experts`: the official release's buffers as ours.

Nothing is trained. The trajectories are checked against the heads and encoders of the parameters; the metrics name the
files with their SHA-256, and say what each expert's last snapshot reaches on our validation split.
"""

from dataclasses import dataclass
from pathlib import Path

from repblend.evaluation.protocol import Split
from repblend.evaluation.towers import Towers
from repblend.params import Experts
from repblend.release.official_buffers import Layouts, buffer_pairs, import_buffers
from repblend.stages.context import StageContext
from repblend.stages.expert_training import summary
from repblend.stages.imported import identify, located
from repblend.stages.provenance import provenance
from repblend.store import write_json


@dataclass(frozen=True)
class ExpertImport:
    """Which trajectories are imported, and what they have to fit."""

    section: str
    """Of the parameters."""
    settings: Experts
    """These parameters; their `import_from` is given."""
    towers: Towers
    layouts: Layouts
    val: Split


def import_experts(context: StageContext, sections: list[str], source: ExpertImport, folder: Path,
                   inputs: list[Path]) -> None:
    """Write the first `num` trajectories of the buffers and `metrics/<stage>.json`.

    Args:
        sections: parameter sections that decide the trajectories.
        folder: where the trajectories go; replaced if it exists.
        inputs: the files that towers and split were read from.

    Raises:
        ValueError: the buffers are missing, damaged, too few, of other shapes, or not what `sha256` says.
    """
    settings, setting = source.settings, f"{source.section}.import_from"
    pairs = buffer_pairs(located(settings.import_from, context.paths))
    imported = identify(setting, settings.import_from, [path for pair in pairs for path in pair])
    import_buffers(pairs, source.layouts, settings.num, folder)
    found = summary(folder, source.towers, source.val, context.params.compute.device)
    write_json(context.paths.metrics(context.stage), found | {
        "imported": imported, "provenance": provenance(context, sections, inputs)})
