import importlib

import pytest

from caploom.common.moved_modules import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_a_module_is_found_by_its_old_name_with_a_sentence(old):
    new = importlib.import_module(MOVED[old])
    with pytest.warns(DeprecationWarning, match=f"{old} is called {MOVED[old]} now"):
        found = importlib.import_module(old)
    assert found is new
    assert new.__spec__.name == MOVED[old]
