"""The packed tree against a brute-force reading of its definition."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medvol.policies.packing import Branch, Prefix, pack_tree, stack_rows


@st.composite
def trees(draw):
    count = draw(st.integers(1, 6))
    return [
        Branch(
            [10 * i + j for j in range(draw(st.integers(1, 4)))],
            draw(st.one_of(st.none(), st.integers(0, i - 1))) if i else None,
        )
        for i in range(count)
    ]


def prefix(length: int = 3) -> Prefix:
    return Prefix(torch.arange(length), torch.arange(length).expand(3, -1) * 2, 11)


def ancestors(branches, i):
    while i is not None:
        yield i
        i = branches[i].parent


@settings(deadline=None, max_examples=60)
@given(trees())
def test_a_token_sees_its_line_and_nothing_else(branches):
    row = pack_tree(prefix(), branches)
    owners = [None] * 3 + [i for i, b in enumerate(branches) for _ in b.ids]
    for a, mine in enumerate(owners):
        for b, theirs in enumerate(owners):
            line = theirs is None or (mine is not None and theirs in ancestors(branches, mine))
            assert bool(row.visible[a, b]) == (line and b <= a)


@settings(deadline=None, max_examples=60)
@given(trees())
def test_positions_count_along_the_line(branches):
    row = pack_tree(prefix(), branches)
    for i, branch in enumerate(branches):
        before = sum(len(branches[j].ids) for j in ancestors(branches, i)) - len(branch.ids)
        span = slice(row.starts[i], row.starts[i] + len(branch.ids))
        assert row.positions[0, span].tolist() == [11 + before + j for j in range(len(branch.ids))]
        assert row.ids[span].tolist() == list(branch.ids)


def test_padding_sees_itself_only():
    rows = [pack_tree(prefix(), [Branch([1, 2, 3])]), pack_tree(prefix(2), [Branch([4])])]
    ids, positions, mask = stack_rows(rows, pad_id=9)
    assert ids.shape == (2, 6)
    assert positions.shape == (3, 2, 6)
    assert ids[1, 3:].tolist() == [9, 9, 9]
    assert mask[1, 0, 3:].tolist() == torch.eye(6, dtype=torch.bool)[3:].tolist()
    assert not mask[1, 0, :3, 3:].any()
