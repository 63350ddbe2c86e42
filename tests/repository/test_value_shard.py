"""Values of a listing in columns are the same as in a dictionary."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.repository.nodes import PATCHED, Content
from backstay.repository.values.shard import ValueShard
from backstay.repository.values.stored import StoredValue

_DIGESTS = st.tuples(st.sampled_from([bytes(8), b"\1" * 8]), st.binary(min_size=1, max_size=1)).map(
    lambda parts: parts[0] + parts[1] + bytes(23)
)
_CONTENTS = st.builds(
    Content, st.sampled_from([0, 0, 0, 1, PATCHED]), st.sampled_from([bytes(32), b"i" * 32, b"", b"i" * 64])
)
_VALUES = st.builds(
    StoredValue,
    _DIGESTS,
    st.sampled_from([0, 1, (1 << 63) - 1]),
    st.sampled_from([0, 0, 1]),
    st.sampled_from([None, None, b"", b"{}"]),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.none(),
    _CONTENTS,
)


@given(st.lists(_VALUES, unique_by=lambda value: value.sha256, max_size=40), _DIGESTS)
@settings(max_examples=150, deadline=None)
def test_a_shard_is_the_dictionary_that_it_stands_for(values: list[StoredValue], other: bytes) -> None:
    values.sort(key=lambda value: value.sha256)
    expected = {value.sha256: value for value in values}
    shard = ValueShard(values)
    assert dict(shard) == dict(shard.pairs()) == expected
    assert len(shard) == len(expected)
    assert shard.total_size == sum(value.size for value in values)
    assert (other in shard, shard.get(other)) == (other in expected, expected.get(other))
