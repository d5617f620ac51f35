"""Text of others in Markdown."""

import re


def escape(text: str) -> str:
    """One line without a meaning in Markdown or HTML; an underscore inside a word has none."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"[\\`*~$\[\]|]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", line)
