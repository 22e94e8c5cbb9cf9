"""Seeds as a function of place."""

from itertools import product

from fiber_cli.seeds import mix


def test_seeds_differ_for_every_place():
    places = list(product((0, 1), range(5), (0, 1), (0, 1)))
    seeds = {mix(*place) for place in places}
    assert len(seeds) == len(places) == 40
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_repeat_and_depend_on_the_order_and_count_of_their_numbers():
    assert mix(1, 2) == mix(1, 2)
    assert len({mix(1, 2), mix(2, 1), mix(1), mix(1, 2, 3)}) == 4
