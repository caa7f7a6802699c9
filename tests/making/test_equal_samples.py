"""Data that cannot teach anything are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgefolio.errors import UserError
from edgefolio.specification import DataSpecification
from edgefolio_pruner.data import load_data


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_equal_training_samples_are_refused_and_one_that_differs_is_enough(tmp_path: Path, dtype: type) -> None:
    samples = np.full((40, 1, 4, 4), 7, dtype=dtype)
    np.savez(tmp_path / "data.npz", x=samples, y=np.arange(40) % 2)
    with pytest.raises(UserError, match=r"all \d+ training samples are equal") as caught:
        load_data(DataSpecification(training_uri=str(tmp_path / "data.npz")), seed=0)
    assert caught.value.field == "spec.data.trainingURI"
    samples[20:] = 8
    np.savez(tmp_path / "data.npz", x=samples, y=np.arange(40) % 2)
    scale = load_data(DataSpecification(training_uri=str(tmp_path / "data.npz")), seed=0).preprocessing.scale
    assert scale == {np.uint8: 1 / 255, np.uint16: 1 / 65535}.get(dtype, 1.0)
