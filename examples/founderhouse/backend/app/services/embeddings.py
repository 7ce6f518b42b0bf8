"""Text to vectors without a model to download: signed feature hashing of words, word pairs and word parts.

The same text gives the same vector on every machine, so stored vectors stay valid over releases.
Texts that share words, or parts of words, end up close by cosine distance.
"""

import hashlib
import math
import re
from collections import Counter
from itertools import pairwise

DIMENSIONS = 256

_WORD = re.compile(r"[a-z0-9]+")
_STOP = frozenset(
    (
        "a an and are as at be by for from has have in into is it its of on or our "
        "that the their they this to was we were which who will with you your"
    ).split()
)


def embed(text: str) -> list[float]:
    """A unit vector (the zero vector for text without words)."""
    vector = [0.0] * DIMENSIONS
    for feature, count in Counter(_features(text)).items():
        digest = int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest(), "big")
        sign = 1.0 if digest & 1 else -1.0
        vector[(digest >> 1) % DIMENSIONS] += sign * _weight(feature) * (1 + math.log(count))
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector] if length else vector


def _features(text: str) -> list[str]:
    words = [w for w in _WORD.findall(text.lower()) if w not in _STOP]
    pairs = [f"{a} {b}" for a, b in pairwise(words)]
    parts = [f"#{w[i : i + 4]}" for w in words if len(w) > 5 for i in range(len(w) - 3)]
    return words + pairs + parts


def _weight(feature: str) -> float:
    if feature.startswith("#"):
        return 0.3
    return 0.6 if " " in feature else 1.0
