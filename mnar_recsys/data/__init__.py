"""Rating logs: ids, scales, features, readers and splits. Importing this never loads torch."""

from mnar_recsys.data.feature_files import read_features
from mnar_recsys.data.features import FeatureTable
from mnar_recsys.data.folds import RatingFolds
from mnar_recsys.data.inter_files import read_inter_split, write_inter, write_inter_split
from mnar_recsys.data.log import RatingLog
from mnar_recsys.data.scale import RatingScale
from mnar_recsys.data.split import Split, split_ratings
from mnar_recsys.data.survey import add_survey, count_trained_labels
from mnar_recsys.data.vocab import Vocabulary

__all__ = [
    "FeatureTable",
    "RatingFolds",
    "RatingLog",
    "RatingScale",
    "Split",
    "Vocabulary",
    "add_survey",
    "count_trained_labels",
    "read_features",
    "read_inter_split",
    "split_ratings",
    "write_inter",
    "write_inter_split",
]
