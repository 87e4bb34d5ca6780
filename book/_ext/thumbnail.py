"""A directive that shows a figure of another page, small and linked: ``{thumbnail} page#id``, where id is a figure's name or a section's.

The picture is the one that the other page shows, made when the book is built. A page or id without a picture is a warning.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.logging import getLogger


class Placeholder(nodes.General, nodes.Element):
    """Replaced when all pages are read."""


class Thumbnail(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        page, _, anchor = self.arguments[0].partition("#")
        node = Placeholder(page=page, anchor=anchor)
        self.set_source_info(node)
        return [node]


def show(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Put the first picture under the id, and the title of its page, both linked, where the placeholder is."""
    for node in list(doctree.findall(Placeholder)):
        target = app.env.get_doctree(node["page"]) if node["page"] in app.env.found_docs else nodes.Element()
        places = target.findall(lambda place, anchor=node["anchor"]: isinstance(place, nodes.Element) and anchor in place.get("ids", []))
        picture = next((image for place in places for image in place.findall(nodes.image)), None)
        if picture is None:
            getLogger(__name__).warning("thumbnail: no picture at %s#%s", node["page"], node["anchor"], location=node)
            node.parent.remove(node)
            continue
        uri = f"{app.builder.get_relative_uri(page, node['page'])}#{node['anchor']}"
        image = picture.deepcopy()
        image["classes"] = ["thumbnail"]
        image["loading"] = "lazy"
        title = nodes.reference("", app.env.titles[node["page"]].astext(), refuri=uri)
        node.replace_self([nodes.reference("", "", image, refuri=uri), nodes.paragraph("", "", title)])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(Placeholder)
    app.add_directive("thumbnail", Thumbnail)
    app.connect("doctree-resolved", show)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
