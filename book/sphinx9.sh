# The same pages by plain Sphinx 9, without Jupyter Book: sh book/sphinx9.sh, after `make env`. Nothing is run; pages go to _build/sphinx9/html.
# Sphinx 9 does not fit beside Jupyter Book 1, so it has an environment of its own, which finds everything else in .venv.
set -e
cd "$(dirname "$0")/.."
PYTHON=.venv/bin/python NEW=_build/sphinx9/env
rm -rf _build/sphinx9
mkdir -p _build/sphinx9
"$PYTHON" -m venv "$NEW"
"$NEW/bin/pip" --quiet install 'sphinx>=9,<10' myst-nb sphinx-book-theme sphinx-comments sphinx-copybutton sphinx-design sphinx-external-toc \
    sphinx-multitoc-numbering sphinx-proof sphinx-togglebutton sphinxcontrib-bibtex
"$PYTHON" -c 'import site; print(site.getsitepackages()[0])' > "$("$NEW/bin/python" -c 'import site; print(site.getsitepackages()[0])')/rest.pth"

# What Jupyter Book makes of its configuration, without what only Jupyter Book 1 has. Sphinx wants it where paths begin.
trap 'rm -f conf.py book/conf.py' EXIT
.venv/bin/jupyter-book config sphinx . --config "$PWD/book/_config.yml" --toc "$PWD/book/_toc.yml"
sed "s/'jupyter_book', //; s/'sphinx_jupyterbook_latex', //g; s/^nb_execution_mode = .*/nb_execution_mode = 'off'/" book/conf.py > conf.py
PYTHONPATH=book/_ext "$NEW/bin/python" -m sphinx -b html . _build/sphinx9/html -n -W --keep-going
