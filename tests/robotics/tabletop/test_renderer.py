"""Pictures: light, shadows, textures, and that what is kept from the last picture changes no bit."""

import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_robotics.tabletop import shading
from selfflow_robotics.tabletop.cameras import look_at, project, unproject
from selfflow_robotics.tabletop.renderer import Picture, Renderer
from selfflow_robotics.tabletop.rows import Layer
from selfflow_robotics.tabletop.shapes import Body, Camera, Light, Look

HEIGHT, WIDTH = 72, 96
FORMS = {"box": (0.04, 0.05, 0.06), "sphere": (0.05,), "cylinder": (0.035, 0.06), "capsule": (0.03, 0.05)}
WHITE = Look((0.8, 0.8, 0.8), gloss=0.0)


def make_body(form, place, size=None, look=WHITE, turn=None, **more) -> Body:
    turn = np.eye(3) if turn is None else turn
    return Body(form, form, FORMS[form] if size is None else size, np.array(place, float), turn, look, **more)


def make_camera(place=(0.0, -0.5, 0.5), target=(0.0, 0.0, 0.0), fov=0.8) -> Camera:
    return Camera(np.array(place, float), look_at(place, target), fov)


def make_table(**look) -> Body:
    return make_body("box", (0, 0, -0.05), (2.0, 2.0, 0.05), Look((0.6, 0.5, 0.4), gloss=0.0, **look), shadow=False)


def turned(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def linear(rgb: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1 the other way."""
    value = rgb / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def haze_of(depth: np.ndarray) -> np.ndarray:
    """1 up to 0.7 m, 12 % less per metre from there, 0.6 from 4 m on."""
    return np.clip(1 - 0.12 * (depth - 0.7), 0.6, 1)


def tilted(height: float, side: float = 0.0, **more) -> Light:
    direction = np.array([side, 0.3, height])
    return Light(tuple(direction / np.linalg.norm(direction)), **more)


@pytest.mark.parametrize("height", [0.2, 0.6, 2.0])
def test_a_plane_is_lit_by_lamberts_law(height: float) -> None:
    light = tilted(height, strength=0.7, ambient=0.2, warmth=0.0)
    picture = Renderer(HEIGHT, WIDTH).render(make_camera(), light, [make_table()], [])
    expected = np.array([0.6, 0.5, 0.4]) * (0.2 + 0.7 * light.direction[2])
    haze = haze_of(picture.depth)[..., None]
    np.testing.assert_allclose(linear(picture.rgb) / haze, np.broadcast_to(expected, picture.rgb.shape), atol=0.006)


def test_a_sphere_is_lit_by_lamberts_law() -> None:
    light = Light((0.6, 0.0, 0.8), strength=0.9, ambient=0.0, warmth=0.0)
    camera = make_camera()
    picture = Renderer(HEIGHT, WIDTH).render(camera, light, [], [make_body("sphere", (0, 0, 0), (0.2,))])
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    points = unproject(camera, np.stack([x, y], axis=-1), picture.depth, HEIGHT, WIDTH)
    normals = points / 0.2
    shown = ~grown(picture.ids != 0, 2)
    expected = 0.8 * 0.9 * np.maximum(normals @ light.direction, 0) * haze_of(picture.depth)
    np.testing.assert_allclose(linear(picture.rgb)[..., 1][shown], expected[shown], atol=0.01)


def test_the_warm_lamp_is_orange_and_gloss_shines() -> None:
    render = Renderer(HEIGHT, WIDTH).render
    warm, cool = (render(make_camera(), tilted(1, warmth=w), [make_table()], []).rgb.mean((0, 1)) for w in (1, -1))
    assert warm[0] - warm[2] > cool[0] - cool[2] + 20
    dull, bright = (
        render(make_camera(), tilted(1), [], [make_body("sphere", (0, 0, 0), look=Look((0.3, 0.1, 0.1), gloss=g))]).rgb
        for g in (0.0, 1.0)
    )
    assert bright.max() > dull.max() + 40


def test_srgb_is_the_standards_curve() -> None:
    values = np.linspace(0, 1.2, 1000, dtype=np.float32)
    layer, out = Layer.empty(1, 1000), np.zeros((1, 1000, 3), np.uint8)
    layer.light[:3, 0], layer.depth[:] = values, 0.5  # near enough for no haze
    shading.develop(layer, np.array([0, 1, 0, 1000]), shading.TABLE, out)
    back = linear(out[0, :, 0])
    limited = np.minimum(values, 1)
    step = np.gradient(linear(np.arange(256.0)))[out[0, :, 0]]
    assert (np.abs(back - limited) <= 0.52 * step + 1e-4).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side", [-0.6, 0.0, 0.8])
def test_shadows_lie_where_the_lamps_rays_are_stopped(form: str, side: float) -> None:
    """The shadow's middle and reach on the table against rays to the lamp, sampled against the body itself."""
    light = tilted(1.0, side, warmth=0.0)
    camera, table = make_camera((0, -0.3, 0.7)), make_table()
    body = make_body(form, (0.05, 0.02, 0.15), turn=turned(0.5))
    if form != "box":
        body = dataclasses.replace(body, turn=turned(0.5) @ np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]))
    renderer = Renderer(HEIGHT, WIDTH)
    empty = renderer.render(camera, light, [table], [])
    picture = renderer.render(camera, light, [table], [body])
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    points = unproject(camera, np.stack([x, y], axis=-1), picture.depth, HEIGHT, WIDTH)
    blocked = np.zeros((HEIGHT, WIDTH), bool)
    for far in np.linspace(0, 0.4, 100):
        blocked |= inside(body, points + far * np.array(light.direction))
    on_table = picture.ids == 0
    share = (linear(picture.rgb)[..., 1] + 1e-9) / (linear(empty.rgb)[..., 1] + 1e-9)
    dark = light.ambient / (light.ambient + light.strength * light.direction[2])
    shadow = (share < (1 + dark) / 2) & on_table
    expected = blocked & on_table
    assert expected.sum() > 80
    assert (shadow ^ expected).sum() <= 0.12 * expected.sum()  # half a soft edge, all around
    assert share[expected].min() == pytest.approx(dark, abs=0.02)
    far_away = ~grown(expected, 6) & ~grown(~on_table, 2)
    assert np.abs(share[far_away] - 1).max() < 0.02


def inside(body: Body, points: np.ndarray) -> np.ndarray:
    p = (points - body.place) @ body.turn
    if body.form == "box":
        return (np.abs(p) < body.size).all(-1)
    if body.form == "capsule":
        p[..., 2] -= np.clip(p[..., 2], -body.size[1], body.size[1])
    if body.form == "cylinder":
        return (np.hypot(p[..., 0], p[..., 1]) < body.size[0]) & (np.abs(p[..., 2]) < body.size[1])
    return np.linalg.norm(p, axis=-1) < body.size[0]


def grown(mask: np.ndarray, by: int) -> np.ndarray:
    for _ in range(by):
        wide = np.pad(mask, 1)
        mask = wide[1:-1, 1:-1] | wide[2:, 1:-1] | wide[:-2, 1:-1] | wide[1:-1, 2:] | wide[1:-1, :-2]
    return mask


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("static", [True, False])
def test_shadows_fall_on_other_bodies_and_not_on_the_own_lit_side(form: str, static: bool) -> None:
    light, camera = Light((0.0, 0.0, 1.0), warmth=0.0), make_camera((0, -0.6, 0.6), (0, 0, 0.1))
    below = make_body("box", (0, 0, 0.05), (0.12, 0.12, 0.02))
    above = make_body(form, (0, 0, 0.3))
    renderer = Renderer(HEIGHT, WIDTH)
    table = make_table()
    bodies = [above, below] if not static else [below]
    alone = renderer.render(camera, light, [table], [below])
    without = renderer.render(camera, light, [table], [dataclasses.replace(above, shadow=False), below])
    both = renderer.render(camera, light, [table, above] if static else [table], bodies)
    pixels = project(camera, np.array([0, 0, 0.07]), HEIGHT, WIDTH)[0].astype(int)[::-1]
    assert both.ids[tuple(pixels)] == 2
    level = linear(both.rgb[tuple(pixels)]) / linear(alone.rgb[tuple(pixels)])
    np.testing.assert_allclose(level, light.ambient / (light.ambient + light.strength), rtol=0.05)
    own = ~grown(both.ids != 1, 1)
    assert own.sum() > 50
    np.testing.assert_array_equal(both.rgb[own], without.rgb[own])


def test_a_body_darkens_the_table_beside_its_contact() -> None:
    camera, light = make_camera(), Light((0.0, 0.0, 1.0), strength=0.0, ambient=0.6)
    renderer, table = Renderer(HEIGHT, WIDTH), make_table()
    levels = []
    for height in (0.05, 0.25):
        picture = renderer.render(camera, light, [table], [make_body("sphere", (0, 0, height))])
        pixels = project(camera, np.array([0.06, 0, 0]), HEIGHT, WIDTH)[0].astype(int)[::-1]
        assert picture.ids[tuple(pixels)] == 0
        levels.append(linear(picture.rgb[tuple(pixels)]))
    assert (levels[0] < 0.92 * levels[1]).all()


TEXTURES = ("plain", "label", "stripes", "checker", "wood", "speckle")


@pytest.mark.parametrize("texture", TEXTURES[1:])
@pytest.mark.parametrize("form", FORMS)
def test_textures_show_both_colours_and_nothing_else(form: str, texture) -> None:
    look = Look((0.8, 0.1, 0.1), texture, (0.1, 0.1, 0.8), 0.0)
    light = Light((0.0, -0.6, 0.8), warmth=0.0)
    picture = Renderer(HEIGHT, WIDTH).render(make_camera(), light, [], [make_body(form, (0, 0, 0), look=look)])
    colours = linear(picture.rgb[picture.ids == 0])
    share = colours[:, 2] / (colours[:, 0] + colours[:, 2])  # 1/9 of the colour, 8/9 of the accent
    assert share.max() > (0.5 if texture == "wood" else 0.7) and share.min() < 0.3
    assert 0.05 < (share > 0.4).mean() < 0.95


def random_bodies(rng: np.random.Generator, n: int, wild: bool = False) -> list[Body]:
    bodies = []
    for _ in range(n):
        form = list(FORMS)[rng.integers(4)]
        scale = float(rng.choice([1e-7, 1e-3, 1, 1, 1, 30, 1e6])) if wild else 1.0
        size = tuple(float(value) * scale * rng.uniform(0.5, 2) for value in FORMS[form])
        if wild and rng.random() < 0.2:
            size = tuple(0.0 for _ in size)
        spread = float(rng.choice([0.1, 1, 100])) if wild else 0.15
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        turn[:, 0] *= np.linalg.det(turn)
        colour, accent = (tuple(rng.uniform(size=3).tolist()) for _ in range(2))
        look = Look(colour, TEXTURES[rng.integers(6)], accent, float(rng.uniform()))
        place = rng.normal(size=3) * spread + (0, 0, 0.05)
        bodies.append(Body(form, form, size, place, turn, look, bool(rng.random() < 0.8)))
    return bodies


def assert_same(one: Picture, other: Picture) -> None:
    np.testing.assert_array_equal(one.rgb, other.rgb)
    np.testing.assert_array_equal(one.depth, other.depth)
    np.testing.assert_array_equal(one.ids, other.ids)


@settings(max_examples=12)
@given(st.integers(0, 10**6))
def test_what_is_kept_changes_no_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    static = [make_table(texture="wood"), *random_bodies(rng, 3)]
    moving = random_bodies(rng, 6)
    camera, light = make_camera(rng.normal(size=3) * 0.3 + (0, -0.6, 0.6)), tilted(1.0, float(rng.normal()))
    renderer = Renderer(HEIGHT, WIDTH)
    for _ in range(4):
        which = rng.integers(len(moving), size=rng.integers(3))
        for i in which:
            new = random_bodies(rng, 1)[0]
            if rng.random() < 0.7:
                new = dataclasses.replace(moving[i], place=moving[i].place + rng.normal(size=3) * 0.03)
            moving[i] = new
        scene = (camera, light, static, moving)
        assert_same(renderer.render(*scene), Renderer(HEIGHT, WIDTH).render(*scene))


def test_arrays_may_be_reused_and_scenes_changed() -> None:
    """The same arrays with new values, another camera, light, number or set of bodies: never the old picture."""
    rng = np.random.default_rng(0)
    renderer, camera, light = Renderer(HEIGHT, WIDTH), make_camera(), tilted(1.0)
    static, moving = [make_table()], random_bodies(rng, 3)
    first = renderer.render(camera, light, static, moving)
    kept = first.rgb.copy()
    moving[0].place[:] += 0.05
    changes = [
        (camera, light, static, moving),
        (make_camera((0.3, -0.5, 0.4)), light, static, moving),
        (camera, tilted(0.5), static, moving),
        (camera, light, [make_table(texture="checker")], moving),
        (camera, light, static, moving[:2]),
        (camera, light, static, [dataclasses.replace(moving[0], look=Look((0, 1, 0))), *moving[1:]]),
        (camera, light, static, []),
    ]
    for scene in changes:
        assert_same(renderer.render(*scene), Renderer(HEIGHT, WIDTH).render(*scene))
        assert (renderer.render(*scene).rgb != kept).any()
    np.testing.assert_array_equal(first.rgb, kept)  # a picture given away is not written to again


@given(st.integers(0, 10**6))
def test_nothing_breaks_it(seed: int) -> None:
    """Huge, tiny and degenerate bodies, behind the camera, around it or partly outside."""
    rng = np.random.default_rng(seed)
    camera = make_camera(rng.normal(size=3), rng.normal(size=3) + (0, 0, 3), float(rng.uniform(0.1, 2.8)))
    direction = rng.normal(size=3)
    light = Light(tuple((direction / np.linalg.norm(direction)).tolist()))
    bodies = random_bodies(rng, 8, wild=True)
    with np.errstate(all="raise", under="ignore"):
        picture = Renderer(40, 50).render(camera, light, bodies[:3], bodies[3:])
    assert picture.rgb.shape == (40, 50, 3) and picture.rgb.dtype == np.uint8
    assert picture.depth.dtype == np.float32 and picture.ids.dtype == np.int32
    assert np.isfinite(picture.depth).all() and (picture.depth >= 0).all()
    assert ((picture.depth > 0) == (picture.ids >= 0)).all()
    assert picture.ids.min() >= -1 and picture.ids.max() < 8


@pytest.mark.parametrize("form", FORMS)
def test_a_body_around_or_behind_the_camera_is_not_drawn(form: str) -> None:
    camera = make_camera((0, 0, 0), (0, 1, 0))
    for place, size in (((0.01, 0, 0), None), ((0, -1, 0), None)):
        picture = Renderer(HEIGHT, WIDTH).render(camera, tilted(1), [], [make_body(form, place, size)])
        assert (picture.ids == -1).all()
    nan = Renderer(HEIGHT, WIDTH).render(camera, tilted(1), [], [make_body(form, (np.nan, 1, 0))])
    assert (nan.ids == -1).all()


@pytest.mark.parametrize("form", FORMS)
def test_bodies_partly_outside_are_the_middle_of_a_larger_picture(form: str) -> None:
    """A picture cut from the middle of a larger one of the same focal length."""
    camera = make_camera((0, -0.5, 0.3))
    wide = dataclasses.replace(camera, fov=float(2 * np.arctan(2 * np.tan(camera.fov / 2))))
    for x, z in itertools.product((-0.335, 0.335), (-0.02, 0.02)):
        bodies = [make_body(form, (x, 0, z))]
        small = Renderer(HEIGHT, WIDTH).render(camera, tilted(1), [], bodies)
        large = Renderer(2 * HEIGHT, 2 * WIDTH).render(wide, tilted(1), [], bodies)
        cut = np.s_[HEIGHT // 2 : HEIGHT // 2 + HEIGHT, WIDTH // 2 : WIDTH // 2 + WIDTH]
        assert 0 < (small.ids == 0).sum() < (large.ids == 0).sum()
        assert ((small.ids == 0) != (large.ids[cut] == 0)).sum() <= 2
        inner = (small.ids == 0) & (large.ids[cut] == 0)
        np.testing.assert_allclose(small.depth[inner], large.depth[cut][inner], atol=2e-3)


def test_without_numba_pictures_say_so_and_the_rest_works() -> None:
    program = """
import sys
sys.modules["numba"] = None
from selfflow_robotics.tabletop import TabletopEnv
from selfflow_mm.errors import UserError
env = TabletopEnv("pick", pictures=False)
env.reset(seed=0)
env.step(env.action_space.sample())
try:
    TabletopEnv("pick").reset(seed=0)
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "drawing the tabletop needs 'numba', which is not installed; run: pip install" in done.stdout
