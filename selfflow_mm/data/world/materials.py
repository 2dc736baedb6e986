"""What objects are made of: how they rebound, rub and sound.

**An object's material is what is heard.** Floor, walls, ramps and shelves are all of one quiet stuff that adds no
sound of its own, so that each word of "a red metal ball" governs one thing to see or hear, and a blow between two
objects sounds like both.

A sound is a sum of decaying partials (modal synthesis; K. van den Doel and D. Pai, "The sounds of physical shapes",
Presence 7(4), 1998) and a short click of noise; rolling and sliding are noise in a band that rises with the speed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Partial:
    """One vibration mode: ``frequency`` in Hz, ``amplitude`` relative, ``t60`` seconds to fall by 60 dB."""

    frequency: float
    amplitude: float
    t60: float


@dataclass(frozen=True)
class Material:
    """What an object is made of.

    Attributes:
        elasticity: speed after a square hit on the floor divided by the speed before it, in [0, 1]; two objects that
            meet rebound with the product of theirs.
        friction: Coulomb coefficient on the floor.
        partials: the modes it rings with.
        click: loudness of the noise burst relative to the partials; ``click_t60`` its decay in seconds.
        attack: seconds in which a blow rises to full strength; soft materials rise slowly.
        loudness: peak of the loudest blow, in [0, 1].
        rolling: band of the rolling noise in Hz, slow and fast (``sound.SLOW`` and ``sound.FAST``).
        rolling_loudness: peak of the noise when rolling fast.
        glide: how far the pitch starts above its final value (0.5: half an octave or so); falls within ``glide_time``.
    """

    elasticity: float
    friction: float
    partials: tuple[Partial, ...]
    click: float
    click_t60: float
    attack: float
    loudness: float
    rolling: tuple[tuple[float, float], tuple[float, float]]
    rolling_loudness: float
    glide: float = 0.0
    glide_time: float = 0.03


MATERIALS: dict[str, Material] = {
    # A dry knock: low, close partials that die within a fifth of a second.
    "wooden": Material(
        elasticity=0.50,
        friction=0.4,
        partials=(Partial(420, 1.0, 0.22), Partial(745, 0.7, 0.16), Partial(1180, 0.4, 0.11), Partial(1890, 0.2, 0.07)),
        click=0.35,
        click_t60=0.02,
        attack=0.0005,
        loudness=0.95,
        rolling=((220.0, 500.0), (350.0, 900.0)),
        rolling_loudness=0.34,
    ),
    # A bright, inharmonic ring; the ratios are near those of a free bar (1 : 2.76 : 5.40 : 8.93).
    "metal": Material(
        elasticity=0.58,
        friction=0.3,
        partials=(
            Partial(610, 0.5, 0.90),
            Partial(1684, 1.0, 0.75),
            Partial(2410, 0.45, 0.60),
            Partial(3294, 0.6, 0.45),
            Partial(5447, 0.35, 0.28),
        ),
        click=0.25,
        click_t60=0.01,
        attack=0.0003,
        loudness=0.75,
        rolling=((900.0, 1700.0), (1300.0, 2600.0)),
        rolling_loudness=0.26,
    ),
    # A soft thump whose pitch drops.
    "rubber": Material(
        elasticity=0.74,
        friction=0.6,
        partials=(Partial(160, 1.0, 0.24), Partial(265, 0.45, 0.16)),
        click=0.0,
        click_t60=0.01,
        attack=0.005,
        loudness=0.9,
        rolling=((70.0, 180.0), (110.0, 280.0)),
        rolling_loudness=0.4,
        glide=0.6,
    ),
    # A thin clink, higher and shorter than metal's ring, with nothing below 2 kHz.
    "glass": Material(
        elasticity=0.64,
        friction=0.3,
        partials=(Partial(2090, 1.0, 0.34), Partial(3140, 0.55, 0.26), Partial(4590, 0.35, 0.16)),
        click=0.2,
        click_t60=0.006,
        attack=0.0002,
        loudness=0.75,
        rolling=((1700.0, 2700.0), (2200.0, 3600.0)),
        rolling_loudness=0.22,
    ),
}
