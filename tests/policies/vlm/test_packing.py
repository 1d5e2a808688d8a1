"""The packed tree against a brute-force reading of its definition."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medvol.policies.vlm.packing import Branch, Prefix, pack_tree, stack_rows


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


def sees(branches, length: int = 3) -> list[list[bool]]:
    """Which token sees which, by definition."""
    owners = [None] * length + [i for i, b in enumerate(branches) for _ in b.ids]
    return [
        [
            b <= a and (theirs is None or (mine is not None and theirs in ancestors(branches, mine)))
            for b, theirs in enumerate(owners)
        ]
        for a, mine in enumerate(owners)
    ]


@settings(deadline=None, max_examples=60)
@given(trees())
def test_a_token_sees_its_line_and_nothing_else(branches):
    row = pack_tree(prefix(), branches)
    assert row.prefix_length == 3
    assert row.visible.tolist() == sees(branches)[3:]


@settings(deadline=None, max_examples=60)
@given(trees())
def test_positions_count_along_the_line(branches):
    row = pack_tree(prefix(), branches)
    for i, branch in enumerate(branches):
        before = sum(len(branches[j].ids) for j in ancestors(branches, i)) - len(branch.ids)
        span = slice(row.starts[i], row.starts[i] + len(branch.ids))
        assert row.positions[0, span].tolist() == [11 + before + j for j in range(len(branch.ids))]
        assert row.ids[span].tolist() == list(branch.ids)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(trees(), st.integers(1, 5)), min_size=1, max_size=3))
def test_rows_of_a_batch_see_what_they_see_alone(drawn):
    rows = [pack_tree(prefix(length), branches) for branches, length in drawn]
    ids, positions, mask = stack_rows(rows, pad_id=9)
    first = min(length for _, length in drawn)
    assert mask.shape == (len(rows), 1, ids.shape[1] - first, ids.shape[1])
    for i, (branches, length) in enumerate(drawn):
        size = len(rows[i].ids)
        assert mask[i, 0, : size - first, :size].tolist() == sees(branches, length)[first:]
        assert ids[i, :size].tolist() == rows[i].ids.tolist()
        assert positions[:, i, :size].tolist() == rows[i].positions.tolist()


def test_padding_sees_itself_only():
    rows = [pack_tree(prefix(), [Branch([1, 2, 3])]), pack_tree(prefix(2), [Branch([4])])]
    ids, positions, mask = stack_rows(rows, pad_id=9)
    assert ids.shape == (2, 6)
    assert positions.shape == (3, 2, 6)
    assert ids[1, 3:].tolist() == [9, 9, 9]
    assert mask[1, 0, 1:].tolist() == torch.eye(6, dtype=torch.bool)[3:].tolist()
    assert not mask[1, 0, :1, 3:].any()
