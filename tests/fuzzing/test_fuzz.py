"""A slice of the fuzzing; the whole is `python -m tests.fuzzing.fuzz`."""

import pytest

from tests.fuzzing.fuzz import TARGETS, fuzz


@pytest.mark.unmeasured
@pytest.mark.parametrize("target", TARGETS)
def test_no_input_breaks_a_parser(target: str) -> None:
    result = fuzz(target, inputs=3000, seed=1)
    assert not result.found
    assert result.inputs == 3000
