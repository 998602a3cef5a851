import numpy as np
import pytest

from ijepa.randomness import integers, philox, seed_of, uniforms, words


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0, 0, 0, 0], 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, 0xFFFFFFFFFFFFFFFF, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0_A4093822,
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers_of_random123(counter, key, expected):
    result = philox(key, tuple(np.array([word], dtype=np.uint64) for word in counter))
    assert " ".join(f"{int(word[0]):08x}" for word in result) == expected


def test_a_position_s_numbers_do_not_depend_on_the_others():
    positions = np.array([3, 900, 17])
    together = words(5, 1, 8, positions, 10)
    for i, position in enumerate(positions):
        assert np.array_equal(words(5, 1, 8, np.array([position]), 10)[0], together[i])
        assert np.array_equal(words(5, 1, 8, np.array([position]), 6)[0], together[i, :6])


def test_no_two_places_share_numbers():
    drawn = [
        words(seed, stream, step, np.arange(50), 8) for seed in (0, 1, -1) for stream in (1, 2) for step in (0, 1, 7)
    ]
    rows = np.concatenate(drawn)
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert len({seed_of(0, 4, step, position) for step in range(50) for position in range(50)}) == 2500


def test_uniforms_are_uniform():
    values = uniforms(1, 2, 3, np.arange(500), 200)
    assert 0 < values.min() < 1e-4
    assert 1 - 1e-4 < values.max() < 1
    counts = np.bincount(integers(values, 7).ravel(), minlength=7)
    expected = values.size / 7
    assert (((counts - expected) ** 2 / expected).sum()) < 22.5  # chi-squared, 6 degrees of freedom, p = 0.001
