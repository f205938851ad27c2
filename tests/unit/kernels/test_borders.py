import numpy as np

from icemap_xr.kernels.borders import Edges, beyond, empty, grown, weak


def test_only_what_reaches_an_edge_of_the_image_is_border() -> None:
    zeros = np.zeros((6, 8), bool)
    zeros[2, :3] = True
    zeros[4, 4:6] = True
    zeros[:2, 7] = True
    found = beyond(zeros, Edges(left=True))
    assert found[2, :3].all()
    assert found.sum() == 3
    assert beyond(zeros, Edges(top=True))[:2, 7].all()
    # a dark place inside is an observation, and so is everything in a window that reaches no edge
    assert not beyond(zeros, Edges(True, True, True, True))[4, 4:6].any()
    assert not beyond(zeros, Edges()).any()


def test_each_edge_is_followed_inwards() -> None:
    for edge, place in (("top", np.s_[:2]), ("bottom", np.s_[-2:]), ("left", np.s_[:, :2]), ("right", np.s_[:, -2:])):
        zeros = np.zeros((9, 9), bool)
        zeros[place] = True
        assert (beyond(zeros, Edges(**{edge: True})) == zeros).all()


def test_a_gap_ends_a_border() -> None:
    zeros = np.array([[True, True, False, True]])
    assert beyond(zeros, Edges(left=True)).tolist() == [[True, True, False, False]]


def test_new_products_have_zeros_beyond_the_swath() -> None:
    assert empty(np.array([[0, 1]], np.uint16)).tolist() == [[True, False]]


def test_old_products_have_numbers_far_below_the_noise_there() -> None:
    rng = np.random.default_rng(0)
    noise = np.full((200, 400), 600.0, np.float32)
    # a calm sea: nothing but noise, with the speckle of 4.4 looks
    sea = np.round(np.sqrt(600 * rng.gamma(4.4, 1 / 4.4, noise.shape))).astype(np.uint16)
    sea[:, :60] = rng.integers(0, 8, (200, 60))
    found = grown(beyond(weak(sea, noise), Edges(left=True)))
    assert found[:, :60].all()
    # the rim that is lost beside it is a few pixels wide
    assert not found[:, 75:].any()
