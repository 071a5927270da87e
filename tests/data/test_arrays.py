import hashlib

import numpy as np

from silent_study.data.prepared import arrays_digest


def _images(count: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + count * 6, dtype=np.uint8).reshape(count, 1, 2, 3)


def test_the_digest_is_that_of_the_documented_bytes():
    written = (
        b'{"levels":17,"name":"tiny","test":[2,1,2,3],"train":[3,1,2,3]}\n' + bytes(range(18)) + bytes(range(18, 30))
    )
    assert arrays_digest("tiny", 17, _images(3), _images(2, 18)) == hashlib.sha256(written).hexdigest()


def test_the_digest_changes_with_everything_that_it_covers():
    digests = [
        arrays_digest("tiny", 17, _images(3), _images(2, 18)),
        arrays_digest("other", 17, _images(3), _images(2, 18)),
        arrays_digest("tiny", 256, _images(3), _images(2, 18)),
        arrays_digest("tiny", 17, _images(3, 1), _images(2, 18)),
        arrays_digest("tiny", 17, _images(3), _images(2, 19)),
        arrays_digest("tiny", 17, _images(4), _images(1, 24)),
        arrays_digest("tiny", 17, _images(3).reshape(3, 1, 3, 2), _images(2, 18).reshape(2, 1, 3, 2)),
    ]
    assert len(set(digests)) == len(digests)


def test_the_digest_does_not_depend_on_the_layout_in_memory():
    train, test = _images(3), _images(2, 18)
    assert arrays_digest("tiny", 17, np.asfortranarray(train), np.asfortranarray(test)) == arrays_digest(
        "tiny", 17, train, test
    )
