"""What tests of readers look at: the error of a reader in one line, and the captions of each image."""

import pytest

from captioning.errors import DataError


def error_of(reader, *arguments, kind=DataError, **keywords):
    with pytest.raises(kind) as caught:
        reader(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def captions(records, root):
    return {record.path.relative_to(root).as_posix(): record.captions for record in records}
