"""The words of the world: what captions may name and what signs and blocks may say."""

from __future__ import annotations

SHAPES: tuple[str, ...] = ("ball", "cube", "triangle", "star", "block")
COLOURS: tuple[str, ...] = ("red", "orange", "yellow", "green", "blue", "pink", "white", "black")
MATERIALS: tuple[str, ...] = ("wooden", "metal", "rubber", "glass")

#: What may be written in the room; two to four capital letters, none of them a name of a colour or a shape.
WORDS: tuple[str, ...] = (
    *("GO", "UP", "NO", "HI", "OK", "ME"),
    *("CAT", "DOG", "SUN", "BOX", "HOT", "ICE", "TOY", "JAM", "KEY", "BUS", "FUN", "MAP", "OWL", "PIG", "ZOO", "VAN"),
    *("WEB", "YES", "EGG", "HAT", "RUN", "WHY"),
    *("OPEN", "STOP", "PLAY", "JUMP", "FISH", "FROG", "MOON", "KITE", "WAVE", "QUIZ", "EXIT", "HELP", "HOME", "DUCK"),
)

#: What a blow on a material is called in captions.
SOUNDS: dict[str, str] = {
    "wooden": "a wooden knock",
    "metal": "a metallic clang",
    "rubber": "a rubbery thud",
    "glass": "a glassy clink",
}
