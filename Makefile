# `make demo` and `make test` need python3 (3.11 or newer) and nothing else: each sets up a virtual
# environment of its own, and a stamp file makes the second run quick.

PYTHON ?= python3
SOURCES := $(shell find src -type f -not -path '*/__pycache__/*')

.PHONY: help demo test web results gallery dist clean

help:
	@echo 'make demo   set up .venv (no torch), encode and decode the sample pictures'
	@echo 'make test   set up .venv-dev, run every check and the tests'
	@echo 'make web    build the decoder for browsers into web/dist; needs Node 20.12 or newer'
	@echo 'make results KODAK=FOLDER   measure every number and plot of README and docs again'
	@echo '             EVERYDAY=FOLDER   and those of pictures of every kind'
	@echo '             NETS=FOLDER TRAIN=FOLDER   and what networks see in the files'
	@echo '             COMPRESSAI=PYTHON   and beside CompressAI, in an environment of its own'
	@echo 'make gallery KODAK=FOLDER EVERYDAY=FOLDER   the pictures of docs/gallery.md alone'
	@echo 'make dist   build wheel and sdist into dist and check both in fresh environments'
	@echo 'make clean  remove both environments and what the tools left behind'

demo: .venv/stamp
	.venv/bin/python examples/demo.py

# Where there is Node, the decoder for browsers is built and tested too.
test: .venv-dev/stamp $(if $(shell command -v npm),web)
	PATH="$(CURDIR)/.venv-dev/bin:$$PATH" scripts/check

web: web/node_modules/.package-lock.json
	cd web && npm run build

results: .venv-dev/stamp
	.venv-dev/bin/python scripts/results "$(KODAK)" \
		$(if $(EVERYDAY),--everyday "$(EVERYDAY)") $(if $(TRAIN),--train "$(TRAIN)") \
		$(if $(NETS),--nets "$(NETS)") \
		$(if $(COMPRESSAI),--compressai "$(COMPRESSAI)")

gallery: .venv-dev/stamp
	.venv-dev/bin/python scripts/results "$(KODAK)" gallery.py \
		$(if $(EVERYDAY),--everyday "$(EVERYDAY)")

dist: .venv-dev/stamp
	.venv-dev/bin/python scripts/dist

# Not editable: the demo shows what a person gets who installs the package.
.venv/stamp: pyproject.toml constraints.txt $(SOURCES)
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt .
	touch $@

.venv-dev/stamp: pyproject.toml constraints.txt
	test -x .venv-dev/bin/python || $(PYTHON) -m venv .venv-dev
	.venv-dev/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[dev]'
	touch $@

web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	cd web && npm ci --no-fund
	touch $@

clean:
	rm -rf .venv .venv-dev build dist demo.png
	rm -rf web/node_modules web/build web/dist
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests examples -type d -name __pycache__ -prune -exec rm -rf {} +
