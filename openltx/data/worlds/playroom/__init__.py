"""Playroom: a procedural, physical, captioned world of simple solids, whose truth is known to the pixel.

A scene (`scene`) is drawn from a seed; a launch (`launch`) is simulated (`physics`) until the promised event is seen to
happen (`events`); the camera (`camera`) and the ray caster (`render`) make the pictures, and `captions` the sentences.
`split` says what training must not see. `generate` fills a folder.
"""

from openltx.data.worlds.playroom.generate import generate

__all__ = ["generate"]
