"""First-block cache: leave out the rest of the network in steps where its first block does nearly what it did before.

    a = h_1 - h_0       what the first block adds, computed in every step
    r = h_L - h_1       what all others add, computed if |a - a'| > threshold |a'|, else that of before: r'

where ' is the last step in which all blocks were computed and | | the mean of absolute values over all tokens. After
"TeaCache" (Liu et al. 2024), in the form that needs no calibration. It changes the video: ``docs/memory.md``.
"""

from jaxtyping import Float
from torch import Tensor


class FirstBlockCache:
    """Of one kind of pass (one prompt, weakened or not) of one video. ``left_out`` counts the steps it shortened."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.left_out = 0
        self._known: tuple[Tensor, Tensor] | None = None  # a', r'

    def rest(self, added: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"] | None:
        """What the other blocks are taken to add if the first one adds ``added``; None if they must be computed.

        Looks at the numbers, which on an accelerator waits for the device.
        """
        if self._known is None:
            return None
        before, rest = self._known
        if (added - before).abs().mean() > self.threshold * before.abs().mean():
            return None
        self.left_out += 1
        return rest

    def keep(self, added: Float[Tensor, "b n d"], rest: Float[Tensor, "b n d"]) -> None:
        """Remember a step in which all blocks were computed."""
        self._known = added, rest
