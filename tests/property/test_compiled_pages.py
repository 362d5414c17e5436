"""What names mean in scopes that are asked name by name: many at once, or one after another."""

from hypothesis import given
from hypothesis import strategies as st

from netsim.compiled.resolution import Pages

NAMES = st.dictionaries(st.integers(0, 5000), st.integers(1, 1 << 31), max_size=40)


@given(st.lists(st.tuples(st.sampled_from("ab"), NAMES), max_size=5))
def test_many_names_at_once_mean_what_they_mean_one_by_one(steps: list[tuple[str, dict[int, int]]]) -> None:
    together, apart = Pages(), Pages()
    for key, meant in steps:
        together.set_all(together.scope(key, key), list(meant), list(meant.values()))
        for name, found in meant.items():
            apart.set(apart.scope(key, key), name, found)
    asked = {name for _, meant in steps for name in (*meant, *[name + 1 for name in meant])}
    for key in {key for key, _ in steps}:
        for name in asked:
            scopes = together.scope(key, key), apart.scope(key, key)
            assert together.get(scopes[0], name) == apart.get(scopes[1], name)
