"""What `mutate` names is there: a test file that has moved would let every change survive."""

from __future__ import annotations

import os

import pytest

if os.name == "nt":
    pytest.skip("mutation testing forks", allow_module_level=True)

from tests.mutation import mutate


@pytest.mark.parametrize("module", mutate.PATHS)
def test_the_tests_of_a_module_exist(module: str) -> None:
    assert [
        path for path in mutate.tests_of(module) if not (mutate.ROOT / path).exists()
    ] == []
