"""Referring expressions, resolved by the independent reader."""

import re

from scene_reading import EXTREME_OF, RELATION, having, lies, relation_of, the_one

from fiber_cli.data.scenes.expressions import expressions


def test_referring_expressions_fit_one_object(many_scenes):
    located = 0
    for one in many_scenes[:500]:
        made = expressions(one)
        assert {expression.object for expression in made} == set(range(len(one.objects)))
        for text, i, box in made:
            assert box == one.objects[i].box
            if match := re.fullmatch(f"(the .*?) {RELATION} (the .*)", text):
                other, relation = the_one(one, match[3]), relation_of(match[2])
                fitting = [k for k in having(one, match[1]) if lies(one, relation, k, other)]
            elif match := re.fullmatch(r"the (\w+most|lowest) (.*)", text):
                those, relation = having(one, match[2]), EXTREME_OF[match[1]]
                fitting = [k for k in those if all(k == j or lies(one, relation, k, j) for j in those)]
            else:
                fitting, located = having(one, text), located - 1
            assert fitting == [i], text
            located += 1
    assert located > 1000
