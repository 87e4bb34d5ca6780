"""Buttons to the repository, Binder and Colab, where the book is published: where PROM_REPOSITORY has the address of its repository.

A copy that someone builds at home does not know where it will stand, and gets none.
"""

from __future__ import annotations

import os

from sphinx.application import Sphinx
from sphinx.config import Config


def add_buttons(app: Sphinx, config: Config) -> None:
    repository = os.environ.get("PROM_REPOSITORY")
    if repository:
        config.html_theme_options |= {
            "repository_url": repository,
            "repository_branch": "main",
            "path_to_docs": "",
            "use_repository_button": True,
            "use_issues_button": True,
            "launch_buttons": {
                "binderhub_url": "https://mybinder.org",
                "colab_url": "https://colab.research.google.com",
                "notebook_interface": "jupyterlab",
            },
        }


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", add_buttons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
