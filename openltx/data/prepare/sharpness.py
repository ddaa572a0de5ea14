"""How sharp and how light a clip is.

``blur`` is the measure of Crete et al. (2007): by how much less a picture's gradients vary after it has been blurred
once more, from 0 (sharp) to 1 (blurred already). It depends little on what is shown.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from openltx.data.prepare.records import Measures
from openltx.data.prepare.settings import SharpnessSettings
from openltx.data.prepare.stage import Look, rounded

REACH = 11  # pixels over which is blurred again


@dataclass(frozen=True)
class Sharpness:
    """Measures blur (the median of the full-size frames) and mean lightness."""

    settings: SharpnessSettings
    name = "sharpness"

    def measure(self, look: Look) -> Measures:
        import cv2

        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in look.keys]
        return {
            "blur": rounded(np.median([blur(picture.astype(np.float32)) for picture in grey])),
            "lightness": rounded(np.mean([picture.mean() for picture in grey])),
        }

    def objection(self, measures: Measures) -> str | None:
        limits = self.settings
        if measures["lightness"] < limits.min_lightness:
            return f"too dark: mean lightness {measures['lightness']:.0f}"
        if measures["lightness"] > limits.max_lightness:
            return f"too light: mean lightness {measures['lightness']:.0f}"
        if measures["blur"] > limits.max_blur:
            return f"blurred: {measures['blur']:.2f}"
        return None


def blur(grey: Float[np.ndarray, "H W"]) -> float:
    """The larger of the two directions' blur; 1 for a picture without any gradient."""
    import cv2

    found = []
    for across in (True, False):
        again = cv2.blur(grey, (REACH, 1) if across else (1, REACH), borderType=cv2.BORDER_REFLECT)
        sharp, soft = (np.abs(cv2.Sobel(x, cv2.CV_32F, int(across), int(not across))) for x in (grey, again))
        before = float(sharp.sum(dtype=np.float64))
        lost = float(np.maximum(sharp - soft, 0).sum(dtype=np.float64))
        found.append(1 - lost / before if before > 0 else 1.0)
    return max(found)
