"""Generate damaged and odd inputs: changed parts of documents, and changed bytes of files."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

# Meaningless values that replace any part of a document.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from([2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400]),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["", " ", "\0", "../../etc/passwd", "/etc/passwd", "a" * 5000, "\ud83d", "${x}", "${oc.env:HOME}"]),
    st.sampled_from([[], {}, [[]], [None], {"": None}, {"id": 1}, [1, 2, 3, 4], [[0, 0, 9, 0, 9, 9]]]),
    st.recursive(st.integers(), lambda inner: st.lists(inner, max_size=2), max_leaves=4),
)
MUTATION = st.tuples(st.sampled_from(["set", "drop", "double", "rename"]), st.floats(0, 1), ODD)
MUTATIONS = st.lists(MUTATION, max_size=3)
BYTES = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "insert", "delete", "cut", "repeat"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=8),
    ),
    max_size=3,
)


def mutate(document: Any, mutations: list) -> Any:
    """Generate a copy of plain containers with a few parts replaced, removed, duplicated or renamed."""
    document = deepcopy(document)
    for kind, share, given_value in mutations:
        value = deepcopy(given_value)
        places = list(_places(document))
        if not places:
            return value
        container, key = places[min(int(share * len(places)), len(places) - 1)]
        if kind == "set":
            container[key] = value
        elif kind == "drop":
            del container[key]
        elif kind == "double" and isinstance(container, list):
            container.insert(key, deepcopy(container[key]))
        elif isinstance(container, dict):
            container[f"{key}_"] = container.pop(key)
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(document, dict | list):
        for key in list(document) if isinstance(document, dict) else range(len(document)):
            yield document, key
            yield from _places(document[key])


def damage(content: bytes, changes: list) -> bytes:
    """Generate bytes with a few of them changed, added, lost or repeated."""
    content = bytearray(content)
    for kind, share, values in changes:
        at = int(share * len(content))
        if kind == "flip" and content:
            content[at] ^= 1 << (values[0] % 8)
        elif kind == "set":
            content[at : at + len(values)] = values
        elif kind == "insert":
            content[at:at] = values
        elif kind == "delete":
            del content[at : at + len(values)]
        elif kind == "cut":
            del content[at:]
        elif kind == "repeat":
            content[at:at] = content[at : at + 64] * len(values)
    return bytes(content)
