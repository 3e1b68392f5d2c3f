"""Formulas as MathML, which browsers draw themselves: no script and no network. A wrong formula is a warning."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

LOG = logging.getLogger(__name__)
# docutils takes the index of an accented letter for the limit of an operator, and puts it below.
ACCENT = re.compile(r"\\(hat|tilde|bar) ?{?(\w)}?(?=[_^])")


def visit_math(translator: Any, node: nodes.math) -> None:
    """Write a formula in a line of text."""
    translator.body.append(_mathml(node, as_block=False))
    raise nodes.SkipNode


def visit_math_block(translator: Any, node: nodes.math_block) -> None:
    """Write a formula that stands alone, with its number if it has one."""
    number = f'<span class="eqno">({node["number"]})</span>' if node.get("number") else ""
    translator.body.append(f'<div class="math">{number}{_mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def _mathml(node: nodes.math | nodes.math_block, *, as_block: bool) -> str:
    try:
        return str(tex2mathml(ACCENT.sub(r"\\\1{\2}{}", node.astext()), as_block=as_block))
    except MathError as error:
        LOG.warning("formula: %s", error, location=node)
        return f"<code>{nodes.unescape(node.astext())}</code>"


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer, and make it the one used."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
