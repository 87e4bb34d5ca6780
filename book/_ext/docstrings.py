"""From the docstrings of `prom` to what napoleon and Sphinx expect."""

from __future__ import annotations

from types import ModuleType

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import prom

BEFORE_NAPOLEON = 400  # Sphinx's default is 500


def prepare(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Head the examples, or napoleon takes them for a part of the section above; keep it from reading "type: text" in a property."""
    first = next((i for i, line in enumerate(lines) if line.startswith(">>>")), None)
    if first is not None:
        lines[first:first] = ["Examples", "--------"]
    if what in ("attribute", "property"):
        lines[0] = f": {lines[0]}"  # no type


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement) -> nodes.reference | None:
    """The public name of something, ``prom.load`` or ``MaskResult``, leads to the module that defines it."""
    name, dot, member = node.get("reftarget", "").removeprefix("prom.").partition(".")
    if node.get("refdomain") != "py" or name not in prom.__all__:
        return None
    home, path = getattr(prom, name), f"{name}{dot}{member}"
    if isinstance(home, ModuleType):  # what it offers may be defined in one of its files
        home, path = getattr(home, member.partition(".")[0], None), member
    if home is None or isinstance(home, ModuleType):
        return None
    full = f"{home.__module__}.{path}"
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, content)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", prepare, priority=BEFORE_NAPOLEON)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
