"""What a text must be to become a candidate: its length in characters, its language.

Each filter returns the reason it drops a row for, so the funnel's counts come for free.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit.errors import UserError


@functools.cache
def _cld2() -> Any:
    try:
        import pycld2
    except ImportError as error:
        raise UserError(
            "language identification needs the extra: pip install 'webimagetext[language]'"
        ) from error
    return pycld2


def check_languages(codes: list[str]) -> None:
    """Checks that languages can be identified here, and that these codes are among them.

    Raises:
        UserError: where the extra is missing, or naming the first code that no text would have.
    """
    cld2 = _cld2()
    names = set(cld2.DETECTED_LANGUAGES)
    known = {code for name, code in cld2.LANGUAGES if name in names}
    for code in codes:
        if code not in known:
            raise UserError(
                f"--language {code}: not a language that is identified; name CLD2's codes, as en, "
                "de, iw or zh-Hant"
            )


def identify_languages(texts: pa.Array) -> pa.Array:
    """Returns string [n]: CLD2's language code of each text, null where it is not sure."""
    cld2 = _cld2()

    def identify(text: str) -> str | None:
        try:
            _, _, best = cld2.detect(text, bestEffort=True)
        except cld2.error:  # control characters
            return None
        return None if best[0][1] == "un" else best[0][1]

    return pa.array([identify(text) for text in texts.to_pylist()], pa.string())


def dropped(
    batch: pa.RecordBatch, min_text: int, max_text: int, languages: list[str]
) -> dict[str, np.ndarray]:
    """Returns, by reason, bool [n]: the rows to drop; a row has at most one reason."""
    length = pc.utf8_length(batch["text"]).to_numpy(zero_copy_only=False)
    reasons = {"text_too_short": length < min_text, "text_too_long": length > max_text}
    if languages:
        wanted = pc.is_in(batch["language"], pa.array(languages)).to_numpy(zero_copy_only=False)
        reasons["other_language"] = ~wanted & (length >= min_text) & (length <= max_text)
    return reasons
