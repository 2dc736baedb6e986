"""Rays against bodies: closed forms, and float64 sphere tracing of signed distance functions written here."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.errors import UserError
from selfflow_robotics.tabletop.cameras import look_at, project, unproject
from selfflow_robotics.tabletop.painting import paint
from selfflow_robotics.tabletop.renderer import Picture, Renderer
from selfflow_robotics.tabletop.rows import BODY, SOLID, Layer, View, pack
from selfflow_robotics.tabletop.shapes import Body, Camera, Light, Look
from selfflow_robotics.tabletop.solids import prepare

HEIGHT, WIDTH = 60, 80
LAMP = Light((0.0, 0.0, 1.0))
FORMS = {"box": (0.1, 0.16, 0.07), "sphere": (0.13,), "cylinder": (0.08, 0.15), "capsule": (0.07, 0.12)}


def make_body(form: str, place, turn=None, size=None, **look) -> Body:
    turn = np.eye(3) if turn is None else turn
    return Body(form, form, size or FORMS[form], np.array(place, float), turn, Look((0.5, 0.4, 0.3), **look))  # type: ignore[arg-type]


def make_camera(place, target, fov: float = 0.9) -> Camera:
    return Camera(np.array(place, float), look_at(place, target), fov)


def random_turn(rng: np.random.Generator) -> np.ndarray:
    turn, upper = np.linalg.qr(rng.normal(size=(3, 3)))
    turn = turn * np.sign(np.diag(upper))
    turn[:, 0] *= np.linalg.det(turn)
    return turn


def picture_of(*bodies: Body, camera: Camera, height: int = HEIGHT, width: int = WIDTH) -> Picture:
    return Renderer(height, width).render(camera, LAMP, (), bodies)


def pixel_rays(camera: Camera, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """``(height, width, 3)`` directions in the base frame with depth 1."""
    focal = height / 2 / np.tan(camera.fov / 2)
    y, x = np.mgrid[:height, :width] + 0.5
    rays = np.stack([(x - width / 2) / focal, (y - height / 2) / focal, np.ones_like(x)], axis=-1)
    return rays @ camera.turn.T


def signed_distance(body: Body, points: np.ndarray) -> np.ndarray:
    p = (points - body.place) @ body.turn
    if body.form == "sphere":
        return np.linalg.norm(p, axis=-1) - body.size[0]
    if body.form == "capsule":
        p[..., 2] -= np.clip(p[..., 2], -body.size[1], body.size[1])
        return np.linalg.norm(p, axis=-1) - body.size[0]
    if body.form == "box":
        q = np.abs(p) - body.size
    else:
        q = np.stack([np.hypot(p[..., 0], p[..., 1]) - body.size[0], np.abs(p[..., 2]) - body.size[1]], axis=-1)
    return np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(-1), 0)


def trace(body: Body, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Depth (infinite for a miss) and the closest approach in metres, by sphere tracing."""
    rays = pixel_rays(camera)
    length = np.linalg.norm(rays, axis=-1)
    depth, closest = np.zeros(rays.shape[:2]), np.full(rays.shape[:2], np.inf)
    for _ in range(200):
        gap = signed_distance(body, camera.place + rays * depth[..., None])
        closest = np.minimum(closest, gap)
        depth = np.minimum(depth + np.maximum(gap, 0) / length, 1e3)
    return np.where(closest < 1e-7, depth, np.inf), closest


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(4))
def test_bodies_are_where_sphere_tracing_finds_them(form: str, seed: int) -> None:
    rng = np.random.default_rng([seed, len(form)])
    body = make_body(form, rng.normal(size=3) * 0.05, random_turn(rng))
    away = rng.normal(size=3)
    camera = make_camera(away / np.linalg.norm(away) * 0.8, (0.03, -0.05, 0.02))
    picture = picture_of(body, camera=camera)
    depth, closest = trace(body, camera)
    hit = np.isfinite(depth)
    pixel = 0.8 * 2 * np.tan(0.45) / HEIGHT
    assert hit.sum() > 100
    # A pixel that is not at the outline agrees; at the outline half a pixel is the finest that ids can say.
    outline = np.pad(hit, 1, mode="edge")
    around = [outline[1 + i : 1 + i + HEIGHT, 1 + j : 1 + j + WIDTH] for i in (-1, 0, 1) for j in (-1, 0, 1)]
    sure = np.all(around, axis=0) | ~np.any(around, axis=0)
    np.testing.assert_array_equal((picture.ids >= 0)[sure], hit[sure])
    wrong = (picture.ids >= 0) != hit
    assert wrong.sum() <= 0.02 * hit.sum() and (closest[wrong] < 0.5 * pixel).all()
    inner = np.all(around, axis=0) & (picture.ids >= 0)
    np.testing.assert_allclose(picture.depth[inner], depth[inner], atol=2e-4)
    assert (picture.depth[picture.ids < 0] == 0).all()


def test_depth_is_along_the_axis_and_not_the_ray() -> None:
    camera = Camera(np.zeros(3), np.eye(3), 1.0)  # looks along the base frame's z
    wall = make_body("box", (0, 0, 2.5), size=(9.0, 9.0, 0.5))
    np.testing.assert_allclose(picture_of(wall, camera=camera).depth, 2.0, rtol=1e-6)
    ball = picture_of(make_body("sphere", (0, 0, 1.0), size=(0.25,)), camera=camera, height=61, width=81)
    assert ball.depth[30, 40] == pytest.approx(0.75, rel=1e-6)


def test_a_sphere_looks_the_same_however_it_is_turned() -> None:
    rng = np.random.default_rng(0)
    camera = make_camera((0.7, 0.1, 0.5), (0, 0, 0))
    pictures = [picture_of(make_body("sphere", (0, 0, 0), random_turn(rng)), camera=camera) for _ in range(3)]
    for other in pictures[1:]:
        np.testing.assert_allclose(other.depth, pictures[0].depth, atol=1e-6)
        assert np.abs(other.rgb.astype(int) - pictures[0].rgb).max() <= 1


@pytest.mark.parametrize("form", FORMS)
def test_the_nearer_body_hides_the_other_whichever_comes_first(form: str) -> None:
    camera = make_camera((1.0, 0, 0), (0, 0, 0))
    near, far = make_body(form, (0.0, 0, 0)), make_body("box", (-0.5, 0, 0), size=(0.05, 0.4, 0.6))
    one, other = picture_of(near, far, camera=camera), picture_of(far, near, camera=camera)
    np.testing.assert_array_equal(one.rgb, other.rgb)
    assert one.ids[HEIGHT // 2, WIDTH // 2] == 0 and other.ids[HEIGHT // 2, WIDTH // 2] == 1
    assert one.ids[HEIGHT // 4, WIDTH // 2] == 1  # the farther one is seen above it


def test_bodies_through_each_other_show_the_nearer_of_each_pixel() -> None:
    camera = make_camera((1.0, 0.2, 0.3), (0, 0, 0))
    bodies = [make_body("box", (0, 0, 0)), make_body("sphere", (0.02, 0.05, 0.03)), make_body("capsule", (0, -0.05, 0))]
    depths = np.stack([trace(body, camera)[0] for body in bodies])
    picture = picture_of(*bodies, camera=camera)
    first, second = np.sort(depths, axis=0)[:2]
    sure = np.isfinite(first) & (second > first + 1e-3) & (picture.ids >= 0)
    agree = picture.ids[sure] == depths.argmin(0)[sure]
    assert agree.mean() > 0.97  # the rest lies on outlines


@pytest.mark.parametrize("form", FORMS)
def test_coverage_sums_to_the_area(form: str) -> None:
    """The shares of a small picture's pixels are those of an 8 times finer one's hits."""
    rng = np.random.default_rng(3)
    body = make_body(form, (0, 0, 0), random_turn(rng))
    camera = make_camera((0.9, 0.5, 0.4), (0, 0, 0))
    view, solids = View.of(camera, LAMP, HEIGHT, WIDTH), np.zeros(1, SOLID)
    prepare(pack([body]).view(BODY)[:, 0], view, -1.0, np.zeros((0, 5)), solids)
    levels = []
    for behind in (0, 1):  # what is seen of the background is what the body does not cover
        layer = Layer.empty(HEIGHT, WIDTH)
        layer.light[:] = behind
        whole = np.array([0, HEIGHT, 0, WIDTH])
        paint(layer, solids, np.array([0]), 0, whole, view, np.ones(3), np.ones(3))
        levels.append(layer.light[0])
    cover = 1 - (levels[1] - levels[0])
    large = picture_of(body, camera=camera, height=8 * HEIGHT, width=8 * WIDTH)
    area = (large.ids >= 0).reshape(HEIGHT, 8, WIDTH, 8).mean((1, 3))
    assert cover.sum() == pytest.approx(area.sum(), rel=0.01)
    assert np.abs(cover - area).max() < 0.35 and np.abs(cover - area).mean() < 0.01


@given(st.integers(0, 10**6))
def test_project_and_unproject(seed: int) -> None:
    rng = np.random.default_rng(seed)
    camera = make_camera(rng.normal(size=3), rng.normal(size=3) + (0, 5, 0), rng.uniform(0.3, 2))
    points = rng.normal(size=(4, 5, 3)) + (0, 5, 0)
    pixels, depth = project(camera, points, HEIGHT, WIDTH)
    np.testing.assert_allclose(unproject(camera, pixels, depth, HEIGHT, WIDTH), points, atol=1e-6)


def test_a_body_is_drawn_where_its_centre_projects() -> None:
    camera = make_camera((0.9, 0.4, 0.6), (0.1, 0, 0))
    body = make_body("sphere", (0.15, 0.1, 0.05), size=(0.05,))
    picture = picture_of(body, camera=camera)
    pixels, depth = project(camera, body.place, HEIGHT, WIDTH)
    rows, columns = np.nonzero(picture.ids == 0)
    assert abs(columns.mean() + 0.5 - pixels[0]) < 0.5 and abs(rows.mean() + 0.5 - pixels[1]) < 0.5
    middle = picture.depth[int(pixels[1]), int(pixels[0])]
    assert depth - 0.05 < middle < depth - 0.04


def test_look_at_puts_the_target_in_the_middle_and_up_above() -> None:
    camera = make_camera((0.3, -0.4, 0.9), (0.5, 0.2, 0.1))
    pixels, depth = project(camera, np.array([(0.5, 0.2, 0.1), (0.5, 0.2, 0.2)]), HEIGHT, WIDTH)
    np.testing.assert_allclose(pixels[0], (WIDTH / 2, HEIGHT / 2), atol=1e-9)
    assert pixels[1, 1] < pixels[0, 1] and pixels[1, 0] == pytest.approx(pixels[0, 0])
    np.testing.assert_allclose(camera.turn.T @ camera.turn, np.eye(3), atol=1e-12)
    assert np.linalg.det(camera.turn) == pytest.approx(1)
    for target in ((0, 0, 0), (0, 0, 1)):
        with pytest.raises(UserError, match="cannot look at"):
            look_at((0, 0, 0), target)
