"""What the floor and walls can be made of: how they rebound, rub and ring.

"The material" of a clip is that of the room's floor (the walls share it). It is what captions name, what the floor
shows, and what a contact sounds like; an object has a shape and a colour but no material of its own.

A sound is a sum of decaying partials (modal synthesis; K. van den Doel and D. Pai, "The sounds of physical shapes",
Presence 7(4), 1998) and a short click of noise.
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
    """A floor and wall material.

    Attributes:
        elasticity: speed after a square hit divided by the speed before it, in [0, 1].
        friction: Coulomb coefficient of an object on it.
        partials: the modes it rings with.
        click: loudness of the noise burst relative to the partials; ``click_t60`` its decay in seconds.
        attack: seconds in which a sound rises to full strength; soft materials rise slowly.
        glide: how far the pitch starts above its final value (0.5: half an octave or so); falls within ``glide_time``.
        loudness: peak of the loudest contact, in [0, 1].
    """

    elasticity: float
    friction: float
    partials: tuple[Partial, ...]
    click: float
    click_t60: float
    attack: float
    loudness: float
    glide: float = 0.0
    glide_time: float = 0.03


MATERIALS: dict[str, Material] = {
    # A dry knock: low, close partials that die within a fifth of a second.
    "wood": Material(
        elasticity=0.50,
        friction=0.4,
        partials=(Partial(420, 1.0, 0.22), Partial(745, 0.7, 0.16), Partial(1180, 0.4, 0.11), Partial(1890, 0.2, 0.07)),
        click=0.35,
        click_t60=0.02,
        attack=0.0005,
        loudness=0.95,
    ),
    # A bright, inharmonic ring; the ratios are near those of a free bar (1 : 2.76 : 5.40 : 8.93).
    "metal": Material(
        elasticity=0.62,
        friction=0.25,
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
    ),
    # A soft thump whose pitch drops.
    "rubber": Material(
        elasticity=0.74,
        friction=0.5,
        partials=(Partial(160, 1.0, 0.24), Partial(265, 0.45, 0.16)),
        click=0.0,
        click_t60=0.01,
        attack=0.005,
        glide=0.6,
        loudness=0.9,
    ),
}
