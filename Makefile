# make repro    the active study (params.yaml), end to end; STUDY=NAME makes another one active first
# make test     all tests; make test-fast those without trainings, in less than a minute
# make docs     the documentation as a site: site/index.html
# make bench    every figure of docs/performance.md, on this machine (75 minutes); bench-gpu: those of a GPU
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
STAMP := .venv/.installed
# DVC's stages call `python`: it must be ours. MLflow and DVC report to nobody.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := true
# Each stage is a process of its own: without bytecode it compiles torch and MLflow anew, 10 seconds a stage where the
# environment forbids Python to keep it (PYTHONDONTWRITEBYTECODE).
export UV_COMPILE_BYTECODE := true

.PHONY: install repro test test-fast coverage browser audit check lint types types-of-tests docs figures bench bench-gpu fix deps mutations ui dag exps screenshots lock

install: $(STAMP)

# TORCH=cpu: everything but torch and the CUDA packages it brings from the lock, then torch's CPU build, whose files
# are others than those the lock has hashes of.
$(STAMP): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) || echo "uv is not to be had; pip will do"
ifeq ($(TORCH),cpu)
	awk '/^[a-z]/ {skip = /^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)(\[.*\])?==/} !skip' \
		requirements.txt > .venv/requirements-cpu.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r .venv/requirements-cpu.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend cpu $$(grep -oE '^torch(vision)?==[0-9.]+' requirements.txt)
else
	if [ -x $(BIN)/uv ]; then $(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.txt; \
	else $(BIN)/python -m pip install --quiet --require-hashes -r requirements.txt; fi
endif
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/python -c "from fcos.running.dvc import allow_without_git; allow_without_git()"
	touch $(STAMP)

repro: install
ifdef STUDY
	fcos study use $(STUDY)
endif
	fcos study run

# A file of tests at a time on each core; torch's threads would only wait for each other.
test: install browser
	OMP_NUM_THREADS=1 pytest -n auto --dist loadfile --no-loadscope-reorder

# What needs no training, no process and no browser: under a minute.
FAST := analysis config contact_sheet detect download folders formats group_norm images results_forms scoring \
	settings_are_used stages statistics study_run
test-fast: install
	OMP_NUM_THREADS=1 pytest -n auto --dist loadfile $(FAST:%=tests/test_%.py)

# Which lines no test runs, the files with most of them first. Tracing takes a third more of the processor than `make test`.
COVERAGE := $(CURDIR)/.coverage_cache
coverage: install browser
	rm -rf $(COVERAGE) && mkdir $(COVERAGE)
	COVERAGE_FILE=$(COVERAGE)/data OMP_NUM_THREADS=1 coverage run -m pytest -n auto --dist loadfile --no-loadscope-reorder
	COVERAGE_FILE=$(COVERAGE)/data coverage combine --quiet && COVERAGE_FILE=$(COVERAGE)/data coverage report

# What the pages are tested in: Debian's chromium, where we may install it; without it those tests are skipped.
browser:
	@command -v chromium > /dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
		&& apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y chromium > /dev/null 2>&1; } \
		|| echo "no chromium: the tests of the pages are skipped"

# The pinned dependencies against what is known of them; fails where something is. Nothing is installed, and where the
# advisories cannot be had, one line says so.
AUDIT := pip-audit --progress-spinner off --disable-pip --require-hashes -r requirements.txt
audit: install
	@found=$$(timeout 180 $(BIN)/uvx --quiet $(AUDIT) 2>&1 || timeout 60 python -m $(subst pip-audit,pip_audit,$(AUDIT)) 2>&1); code=$$?; \
	case "$$code $$found" in \
	*"Found "*"known vulnerabilit"*) echo "$$found"; exit 1;; \
	*"could not be audited"*) echo "audit: not done for $$(echo "$$found" | grep -c 'could not be audited') dependencies," \
		"whose advisories cannot be reached";; \
	0*) echo "audit: nothing is known against the pinned dependencies";; \
	*) echo "audit: not done, the advisories cannot be reached";; esac

# Parts, so that `make --jobs 2 check` takes half the time: mypy reads torch anew for each of its two settings.
check: lint types types-of-tests
lint: install
	ruff check .
	ruff format --check .
	lint-imports
types: install
	mypy
types-of-tests: install
	mypy --config-file tests/mypy.ini

# The documentation as a site in site/, which needs no network. Material's notice about the future of mkdocs is off.
docs: install
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

# The figures of docs/explained.md, drawn anew; they are committed.
figures: install
	python docs/figures

# The evaluators that ours is held against, apart from our environment.
PEERS := .venv/peers
$(PEERS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check $$($(BIN)/python -c \
		"import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['bench'])")
	touch $@

bench: install $(PEERS)/.installed
	for program in training_step epoch prediction scoring commands study growth; do \
		python benchmarks/$$program.py --out benchmarks/results/$$program.json || exit 1; done
	python benchmarks/coverage.py --out benchmarks/results/coverage.json
	python benchmarks/coverage.py --small --out benchmarks/results/coverage_small.json
	python benchmarks/file_to_numbers.py --peers $(PEERS)/bin/python --out benchmarks/results/file_to_numbers.json
	python benchmarks/page.py

bench-gpu: install
	python benchmarks/training_step.py --device cuda --batch-size 16 --steps 10 --out benchmarks/results/training_step_gpu.json
	python benchmarks/epoch.py --device cuda --batch-size 16 --number 512 --workers 8 --out benchmarks/results/epoch_gpu.json
	python benchmarks/prediction.py --device cuda --number 512 --workers 8 --out benchmarks/results/prediction_gpu.json
	python benchmarks/page.py

fix: install
	ruff check --fix .
	ruff format .

# The modules that each stage imports, as its dependencies in the dvc.yaml files, after a change of imports.
deps: install
	python tests/stage_deps.py

# Single lines changed one at a time, in a copy: whether a test notices each (tests/mutations.json).
mutations: install
	python tests/mutate.py

ui: install
	mlflow server --host 127.0.0.1 --port 5000 --backend-store-uri \
		"$$(python -c 'from fcos.tracking.store import own_uri; print(own_uri())')"

dag: install
	dvc dag

# What `dvc exp show` says of experiments, without what is the same everywhere and without recalls and file digests.
exps: install
	COLUMNS=$${COLUMNS:-200} dvc exp show --no-pager --only-changed --drop '(AR|AP[sml]|:AP75|^(fcos|data|runs|reports|stages)/)' --sort-by metrics

# The images of README and docs, after `make repro`.
screenshots: install browser
	python docs/screenshots.py

# Compile the lock anew from pyproject.toml: complete, with hashes, without any download address.
lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --custom-compile-command "make lock" --extra dev pyproject.toml --output-file requirements.txt
