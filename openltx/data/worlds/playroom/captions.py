"""Sentences for a scene's truth, short and long, in many phrasings.

`phrase` draws one; the same truth gives others with another generator, so that training can caption a clip anew every
time. `mirror` gives the truth of the horizontally flipped clip.
"""

from typing import Any

import numpy as np

Truth = dict[str, Any]

SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "ball": ("ball", "ball", "ball", "sphere"),
    "cube": ("cube", "cube", "cube", "block"),
    "cylinder": ("cylinder",),
    "capsule": ("capsule",),
    "cone": ("cone",),
}
SIZE_WORDS = {"small": ("small", "small", "little"), "large": ("large", "large", "big")}
MATERIAL_WORDS = {
    "rubber": ("rubber", "rubber", "matte rubber"),
    "plastic": ("plastic", "plastic", "glossy plastic"),
    "metal": ("metal", "shiny metal", "metallic"),
}
FLOOR_WORDS: dict[str, tuple[str, ...]] = {
    "wooden": ("a wooden floor", "a wooden floor", "wooden planks"),
    "checkered": ("a checkered floor", "a checkered floor", "a checkerboard floor"),
    "grey concrete": ("a grey concrete floor", "a concrete floor"),
    "green grass": ("green grass", "the grass", "a green lawn"),
    "blue carpet": ("a blue carpet",),
    "white marble": ("a white marble floor", "a marble floor"),
}
BACKDROP_WORDS: dict[str, tuple[str, ...]] = {
    "blue sky": ("under a blue sky", "under a bright blue sky"),
    "sunset sky": ("under a sunset sky", "at sunset"),
    "night sky": ("under a night sky", "at night", "under a dark blue night sky"),
    "grey wall": ("in front of a grey wall", "against a grey wall"),
    "beige wall": ("in front of a beige wall", "against a beige wall"),
}
TIMES = {1: "once", 2: "twice", 3: "three times", 4: "four times"}
EVENT_WORDS: dict[str, tuple[str, ...]] = {  # a caption of the event holds at least one of these
    "bounce": ("bounces", "bouncing"),
    "drop": ("drops", "falls"),
    "roll": ("rolls",),
    "slide": ("slides",),
    "topple": ("topples", "tips over", "falls over"),
    "collide": ("collides", "hits", "bumps", "into"),
    "swing": ("swings",),
    "still": ("stands", "rests", "sits", "lies", "still"),
}
OPPOSITE = {"left": "right", "right": "left"}


def phrase(truth: Truth, rng: np.random.Generator) -> str:
    """One caption: short (object, event, floor), medium, or long (everything), drawn by ``rng``."""
    kind = rng.random()
    if kind < 0.3:
        return short(truth, rng)
    return medium(truth, rng) if kind < 0.65 else long(truth, rng)


def short(truth: Truth, rng: np.random.Generator) -> str:
    """A few lower-case words: "a red ball bounces on a checkered floor"."""
    place = f" on {_pick(rng, FLOOR_WORDS[truth['floor']])}" if rng.random() < 0.7 else ""
    main = _object(truth["objects"][0], rng, size=rng.random() < 0.25, material=rng.random() < 0.15)
    return f"{main} {_brief_action(truth, rng)}{place}"


def medium(truth: Truth, rng: np.random.Generator) -> str:
    """One sentence with some of the details."""
    main = _object(truth["objects"][0], rng, size=rng.random() < 0.6, material=rng.random() < 0.5)
    parts = [main, _action(truth, rng)]
    if len(truth["objects"]) > 1 and truth["event"] != "collide" and rng.random() < 0.7:
        parts.append(_beside(truth, rng, full=False))
    if rng.random() < 0.35:
        parts.append(_pick(rng, BACKDROP_WORDS[truth["backdrop"]]))
    if truth["camera"] != "static" and rng.random() < 0.7:
        parts.append(f"{_pick(rng, ('while', 'as'))} {_camera(truth['camera'], rng)}")
    return _sentence(" ".join(parts))


def long(truth: Truth, rng: np.random.Generator) -> str:
    """Everything there is to say: sizes, materials, the second object, the backdrop, the camera."""
    main = _object(truth["objects"][0], rng, size=True, material=True)
    parts = [main, _action(truth, rng)]
    if len(truth["objects"]) > 1 and truth["event"] != "collide":
        parts.append(_beside(truth, rng, full=True))
    if rng.random() < 0.8:
        parts.append(_pick(rng, BACKDROP_WORDS[truth["backdrop"]]))
    text = " ".join(parts)
    camera = _camera(truth["camera"], rng)
    if truth["camera"] != "static" and rng.random() < 0.6:
        return _sentence(f"{text} {_pick(rng, ('while', 'as'))} {camera}")
    return f"{_sentence(text)} {_sentence(camera)}"


def phrase_still(truth: Truth, rng: np.random.Generator) -> str:
    """A caption of a single frame: what there is and where, not what happens."""
    parts = [_object(truth["objects"][0], rng, size=rng.random() < 0.5, material=rng.random() < 0.4)]
    if len(truth["objects"]) > 1 and rng.random() < 0.8:
        other = _object(truth["objects"][1], rng, size=rng.random() < 0.4, material=rng.random() < 0.3)
        parts.append(_pick(rng, (f"and {other}", f"with {other}")))
    if rng.random() < 0.8:
        over = "over" if truth["event"] == "swing" else "on"
        parts.append(f"{over} {_pick(rng, FLOOR_WORDS[truth['floor']])}")
    if rng.random() < 0.4:
        parts.append(_pick(rng, BACKDROP_WORDS[truth["backdrop"]]))
    return " ".join(parts)


def mirror(truth: Truth, width: int = 128) -> Truth:
    """The truth of the clip flipped left to right; captions and tracks included."""

    def flip(text: str) -> str:
        return " ".join(_flip_word(word) for word in text.split(" "))

    flipped = dict(truth)
    for key in ("direction", "camera", "caption_short", "caption_long"):
        if truth.get(key) is not None:
            flipped[key] = flip(truth[key])
    flipped["tracks"] = [
        [None if point is None else [round(width - point[0], 1), *point[1:]] for point in track]
        for track in truth.get("tracks", [])
    ]
    return flipped


def mirror_caption(caption: str) -> str:
    """A caption with left and right exchanged."""
    return " ".join(_flip_word(word) for word in caption.split(" "))


def _flip_word(word: str) -> str:
    bare = word.rstrip(".,")
    return OPPOSITE.get(bare, bare) + word[len(bare) :]


def _object(item: dict[str, str], rng: np.random.Generator, *, size: bool, material: bool) -> str:
    words = [_pick(rng, SIZE_WORDS[item["size"]])] if size else []
    words.append(item["color"])
    if material:
        words.append(_pick(rng, MATERIAL_WORDS[item["material"]]))
    words.append(_pick(rng, SHAPE_WORDS[item["shape"]]))
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


def _action(truth: Truth, rng: np.random.Generator) -> str:
    """What happens and where: a verb phrase with the floor in it."""
    floor = _pick(rng, FLOOR_WORDS[truth["floor"]])
    way = _way(truth["direction"], rng)
    far = f"to the {way}" if way in OPPOSITE else way
    match truth["event"]:
        case "bounce":
            times = TIMES[truth["bounces"]]
            options = (
                f"drops onto {floor} and bounces {times}",
                f"falls onto {floor} and bounces {times}",
                f"bounces {times} on {floor}",
            )
        case "drop":
            options = (f"drops onto {floor}", f"falls onto {floor}", f"falls down and lands on {floor}")
        case "roll":
            options = (f"rolls {way} across {floor}", f"rolls {way} on {floor}", f"rolls across {floor} {far}")
        case "slide":
            options = (f"slides {way} across {floor}", f"slides {way} on {floor}", f"slides across {floor} {far}")
        case "topple":
            side = f"to the {truth['direction']}"
            options = (
                f"is pushed and topples over {side} on {floor}",
                f"topples over {side} on {floor}",
                f"tips over and falls {side} on {floor}",
            )
        case "collide":
            other = _object(truth["objects"][1], rng, size=rng.random() < 0.6, material=rng.random() < 0.4)
            verb = "slides" if truth["objects"][0]["shape"] == "cube" else "rolls"
            options = (
                f"{verb} {way} and hits {other} on {floor}",
                f"{verb} {way} into {other} on {floor}",
                f"collides with {other} while moving {way} on {floor}",
            )
        case "swing":
            options = (
                f"swings on a string above {floor}",
                f"hangs on a string and swings from side to side over {floor}",
                f"swings back and forth on a string over {floor}",
            )
        case _:
            verb = _rest_verb(truth, rng)
            options = (f"{verb} still on {floor}", f"{verb} motionless on {floor}", f"{verb} on {floor}")
    return _pick(rng, options)


def _brief_action(truth: Truth, rng: np.random.Generator) -> str:
    way = _way(truth["direction"], rng)
    match truth["event"]:
        case "bounce":
            return _pick(rng, ("bounces", "bounces", f"bounces {TIMES[truth['bounces']]}"))
        case "drop":
            return _pick(rng, ("falls", "drops", "falls down"))
        case "roll" | "slide" as verb:
            return f"{verb}s {way}"
        case "topple":
            return _pick(rng, ("topples over", f"topples to the {truth['direction']}", "tips over"))
        case "collide":
            other = _object(truth["objects"][1], rng, size=False, material=False)
            return _pick(rng, (f"hits {other}", f"bumps into {other}", f"collides with {other}"))
        case "swing":
            return _pick(rng, ("swings on a string", "swings"))
        case _:
            return _pick(rng, (f"{_rest_verb(truth, rng)} still", _rest_verb(truth, rng)))


def _rest_verb(truth: Truth, rng: np.random.Generator) -> str:
    verbs = {"ball": ("rests", "lies", "sits"), "capsule": ("lies", "rests")}
    return _pick(rng, verbs.get(truth["objects"][0]["shape"], ("stands", "sits", "rests")))


def _way(direction: str | None, rng: np.random.Generator) -> str:
    match direction:
        case "left" | "right":
            return _pick(rng, (direction, f"to the {direction}"))
        case "toward":
            return _pick(rng, ("toward the camera", "towards the camera", "closer to the camera"))
        case "away":
            return _pick(rng, ("away from the camera", "away into the distance", "away"))
    return ""


def _beside(truth: Truth, rng: np.random.Generator, *, full: bool) -> str:
    other = _object(truth["objects"][1], rng, size=full or rng.random() < 0.4, material=full)
    if truth["event"] == "still":
        return _pick(rng, (f"next to {other}", f"beside {other}"))
    return _pick(rng, (f"next to {other}", f"beside {other}", f"with {other} nearby"))


def _camera(camera: str, rng: np.random.Generator) -> str:
    move, _, way = camera.partition(" ")
    slowly = _pick(rng, ("", "", "slowly "))
    match move:
        case "pan":
            return _pick(rng, (f"the camera {slowly}pans {way}", f"the camera {slowly}pans to the {way}"))
        case "orbit":
            return _pick(rng, (f"the camera {slowly}orbits {way}", f"the camera {slowly}orbits to the {way}"))
        case "zoom":
            return f"the camera {slowly}zooms {way}"
    return _pick(rng, ("the camera is static", "the camera stays still", "the camera does not move"))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
