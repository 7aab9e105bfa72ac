"""Names, points and triangles against their sources."""

import subprocess
import sys

import numpy as np
import pytest

from models import face, rates


def one(name: str, names: tuple[str, ...] = face.ARKIT_52) -> np.ndarray:
    weights = np.zeros(len(names), np.float32)
    weights[names.index(name)] = 1.0
    return weights


def test_names_are_whole_and_unique() -> None:
    for names, count in (
        (face.ARKIT_52, 52),
        (face.MEDIAPIPE_52, 52),
        (face.OCULUS_15, 15),
        (face.VRM_EXPRESSIONS, 18),
    ):
        assert len(names) == len(set(names)) == count
    assert face.ARKIT_52[:2] == ("eyeBlinkLeft", "eyeLookDownLeft")
    assert (face.ARKIT_52[17], face.ARKIT_52[18], face.ARKIT_52[51]) == ("jawOpen", "mouthClose", "tongueOut")
    assert face.MEDIAPIPE_52[0] == "_neutral"
    assert face.MEDIAPIPE_52[25] == "jawOpen"


def test_every_viseme_is_recognised_in_its_own_face() -> None:
    visemes = face.oculus_from_arkit(face.arkit_from_oculus(np.eye(15, dtype=np.float32)))
    assert visemes.argmax(-1).tolist() == list(range(15))


def test_visemes_are_weights_and_share_one() -> None:
    weights = np.random.default_rng(0).uniform(0, 1, (4, 7, 52)).astype(np.float32)
    visemes = face.oculus_from_arkit(weights)
    assert visemes.shape == (4, 7, 15)
    assert visemes.min() >= 0
    np.testing.assert_allclose(visemes.sum(-1), 1.0, atol=1e-5)
    assert face.oculus_from_arkit(np.zeros(52, np.float32))[0] == 1.0


def test_vrm_follows_lids_eyes_and_vowels() -> None:
    def vrm(**weights: float) -> dict[str, float]:
        total = sum((one(name) * weight for name, weight in weights.items()), np.zeros(52, np.float32))
        return dict(zip(face.VRM_EXPRESSIONS, face.vrm_from_arkit(total).tolist(), strict=True))

    wink = vrm(eyeBlinkLeft=1.0)
    assert (wink["blinkLeft"], wink["blinkRight"], wink["blink"]) == (1.0, 0.0, 0.5)
    aside = vrm(eyeLookOutLeft=1.0, eyeLookInRight=1.0)
    assert (aside["lookLeft"], aside["lookRight"]) == (1.0, 0.0)
    assert vrm(jawOpen=0.7, mouthLowerDownLeft=0.2, mouthLowerDownRight=0.2)["aa"] > 0.8
    rounded = vrm(mouthPucker=0.85, mouthFunnel=0.2, jawOpen=0.1)
    assert max(rounded, key=lambda name: rounded[name]) == "ou"
    assert max(vrm().values()) == 0.0


def test_mediapipe_and_arkit_say_the_same_but_for_the_tongue() -> None:
    weights = np.random.default_rng(1).uniform(0, 1, 52).astype(np.float32)
    back = face.arkit_from_mediapipe(face.mediapipe_from_arkit(weights))
    np.testing.assert_array_equal(back[:51], weights[:51])
    assert back[51] == 0.0
    smile = face.arkit_from_mediapipe(one("mouthSmileLeft", face.MEDIAPIPE_52))
    assert face.ARKIT_52[int(smile.argmax())] == "mouthSmileLeft"


def test_tables_are_linear_and_do_not_touch_their_input() -> None:
    weights = np.random.default_rng(2).uniform(0, 1, 52).astype(np.float32)
    before = weights.copy()
    for convert in (face.oculus_from_arkit, face.vrm_from_arkit, face.arkit_from_mediapipe, face.mediapipe_from_arkit):
        convert(weights)
    np.testing.assert_array_equal(weights, before)


@pytest.mark.parametrize("forbidden", ["torch", "mediapipe"])
def test_imports_without(forbidden: str) -> None:
    script = f"import sys; sys.modules[{forbidden!r}] = None; import models.face"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def edges_of(line: np.ndarray, closed: bool) -> set[frozenset[int]]:
    ends = np.roll(line, -1) if closed else line[1:]
    return {frozenset((int(a), int(b))) for a, b in zip(line, ends, strict=False)}


def test_house_is_the_published_division_and_nothing_twice() -> None:
    assert face.HOUSE.shape == (rates.POINTS,)
    assert len(set(face.HOUSE.tolist())) == 131
    assert [len(face.HOUSE[part]) for part in (face.HOUSE_LIPS, face.HOUSE_JAW, face.HOUSE_UPPER)] == [41, 16, 74]
    assert len(face.HOUSE[face.HOUSE_SPOKEN]) == 57


def test_rings_and_lines_run_along_mediapipes_own() -> None:
    theirs = pytest.importorskip("mediapipe.python.solutions.face_mesh_connections")
    lips = {frozenset(edge) for edge in theirs.FACEMESH_LIPS}
    assert edges_of(face.LIPS_OUTER, closed=True) | edges_of(face.LIPS_INNER, closed=True) == lips
    assert edges_of(face.JAW_LINE, closed=False) <= {frozenset(edge) for edge in theirs.FACEMESH_FACE_OVAL}
    for ring, eye in ((face.EYE_RIGHT, theirs.FACEMESH_RIGHT_EYE), (face.EYE_LEFT, theirs.FACEMESH_LEFT_EYE)):
        assert edges_of(ring, closed=True) == {frozenset(edge) for edge in eye}
    for brow, edge in (
        (face.BROW_RIGHT, theirs.FACEMESH_RIGHT_EYEBROW),
        (face.BROW_LEFT, theirs.FACEMESH_LEFT_EYEBROW),
    ):
        assert set(brow.tolist()) == {point for pair in edge for point in pair}


def test_the_68_travel_within_house() -> None:
    assert face.DLIB.shape == (68,)
    assert len(set(face.DLIB.tolist())) == 68
    np.testing.assert_array_equal(face.HOUSE[face.DLIB_IN_HOUSE], face.DLIB)
    np.testing.assert_array_equal(face.HOUSE[face.LIPS_IN_HOUSE], face.LIPS)
    np.testing.assert_array_equal(face.HOUSE[face.NOSE_POSE_IN_HOUSE], face.NOSE_POSE)
    assert set(face.DLIB[face.DLIB_LIPS].tolist()) <= set(face.LIPS.tolist())
    assert set(face.CHEEKS.tolist()) | set(face.DLIB[face.DLIB_LOWER_JAW].tolist()) == set(face.DLIB_JAW.tolist())


def test_rigid_points_do_not_speak() -> None:
    moving = {*face.LIPS.tolist(), *face.JAW_LINE.tolist(), *face.BROW_LEFT.tolist(), *face.BROW_RIGHT.tolist()}
    assert not moving & set(face.RIGID.tolist())


def test_shared_tables_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        face.HOUSE[0] = 1
