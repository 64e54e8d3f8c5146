import numpy as np
import pyarrow as pa
import pytest
import yaml

from caploom.stages.duplicates import _leaked
from caploom.training_set.duplicate_settings import DuplicateSettings


@pytest.mark.parametrize("word", ["off", "'off'", "false"])
def test_yaml_s_off_is_off(word):
    settings = DuplicateSettings.model_validate(yaml.safe_load(f"{{near: {word}, leakage: {word}}}"))
    assert (settings.near, settings.leakage) == ("off", "off")
    assert settings.identity() == {"near": None, "leakage": None}


def test_a_picture_without_features_is_like_no_evaluation_image():
    ours = {"image_id": np.array(["a" * 64, "b" * 64]), "phash": np.array([0, 2**40], np.uint64)}
    theirs = pa.table({"image_id": ["c" * 64, "d" * 64], "phash": pa.array([3, 0], pa.uint64())})
    assert [row["image_id"][0] for row in _leaked(ours, theirs, 4)] == ["b"]
