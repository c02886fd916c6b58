"""Stage `experts`: train the expert heads on the cached features and keep their trajectories (PAPER.md section 5.4).

Resumes after the last expert that was finished; every expert draws from streams of its own, so the bytes are the same.
"""

from repblend.data.features import feature_files, read_features
from repblend.evaluation.towers import HeadPair
from repblend.stages.context import StageContext
from repblend.stages.expert_training import ExpertProblem, train_experts
from repblend.stages.students import training_pairs

SECTIONS = ["compute", "heads", "experts"]


def run(context: StageContext) -> None:
    """Train all experts; write `experts/` and `metrics/experts.json`."""
    params, paths = context.params, context.paths
    features = read_features(paths.features)
    problem = ExpertProblem("expert", params.experts, training_pairs(features), features.val,
                            HeadPair.of_widths(*features.widths, params.heads.width, params.heads.dropout))
    train_experts(context, SECTIONS, problem, paths.experts, sorted(feature_files(paths.features)))
