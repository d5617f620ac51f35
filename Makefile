# make repro    run the active study (params.yaml) end to end; STUDY=NAME selects another one first
# make test     run the tests but the slow ones; make test-all: those too; make test-fast: in less than a minute
# make test-engines   run the tests on real clusters and servers: SLURM, Ray, PostgreSQL, S3
# make docs     build the documentation as a site: site/index.html
# make bench    measure every figure of docs/performance.md on this machine (90 minutes); bench-gpu: those of a GPU
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
STAMP := .venv/.installed
# DVC's stages call `python`, which must be that of .venv. Usage reports of MLflow and DVC are disabled.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := true
# Each stage is a separate process. Without stored bytecode (PYTHONDONTWRITEBYTECODE) it would compile torch and MLflow
# again, which takes 10 seconds per stage.
export UV_COMPILE_BYTECODE := true

.PHONY: install base repro test test-all test-fast test-engines coverage browser audit check lint types types-of-tests docs figures bench bench-gpu fix deps mutations ui dag exps screenshots lock

install: $(STAMP)

# TORCH=cpu installs everything from the lock except torch and its CUDA packages, then torch's CPU build, whose files
# have other hashes than those in the lock.
$(STAMP): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) || echo "uv is not available, so pip is used"
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

# Three test files at a time on two cores. More threads in torch would only compete for the cores. Slow tests, marked so,
# are one in twenty and take two thirds of the time: processes that are killed, whole trainings and studies, benchmarks.
TEST := OMP_NUM_THREADS=1 pytest -n auto --dist loadfile --no-loadscope-reorder
test: install browser
	$(TEST) -m "not engine and not slow"
test-all: install browser
	$(TEST) -m "not engine"

# Tests that need no training, no other process and no browser, in less than a minute.
FAST := analysis config contact_sheet detect download folders formats group_norm images results_forms scoring \
	settings_are_used stages statistics study_run
test-fast: install
	OMP_NUM_THREADS=1 pytest -n auto --dist loadfile $(FAST:%=tests/test_%.py)

# Run all tests and say what they do not run. It takes a tenth more of the processor than `make test-all`.
coverage: install browser
	OMP_NUM_THREADS=1 python -m slipcover --source fcos --json --out .venv/coverage.json -m pytest \
		-W ignore::pytest.PytestAssertRewriteWarning -n auto --dist loadfile --no-loadscope-reorder -m "not engine"
	python tests/coverage_table.py .venv/coverage.json

# The tests of clusters and of a team's servers start real ones: SLURM and PostgreSQL are Debian's, installed if permitted;
# MLflow's server with passwords and an S3 server have an environment of their own. Tests of what is missing are skipped.
SERVERS := .venv/servers
test-engines: install $(SERVERS)/.installed
	@command -v slurmctld > /dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -qq -y slurmctld slurmd slurm-client munge postgresql \
		> /dev/null 2>&1; } || echo "no SLURM: its tests are skipped"
	pytest -m engine --durations=10
$(SERVERS)/.installed: deploy/requirements.txt
	$(PYTHON) -m venv $(SERVERS)
	$(BIN)/uv pip install --quiet --python $(SERVERS)/bin/python --require-hashes -r deploy/requirements.txt \
		|| $(SERVERS)/bin/python -m pip install --quiet --require-hashes -r deploy/requirements.txt
	touch $@

# The pages are tested in Debian's chromium, installed if permitted; without it those tests are skipped.
browser:
	@command -v chromium > /dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
		&& apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y chromium > /dev/null 2>&1; } \
		|| echo "no chromium: the tests of the pages are skipped"

# The wheel with what the base needs, in an environment of its own: tests/test_base_install.py uses it as a stranger would.
BASE := .venv/base
base: install
	rm -rf $(BASE) build
	$(PYTHON) -m venv --without-pip $(BASE)
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(BASE)/wheel .
	sed -nE '/^[a-z]/s/ *\\$$//p' requirements.txt > $(BASE)/pins.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BASE)/bin/python --constraint $(BASE)/pins.txt $(BASE)/wheel/*.whl

# Check the pinned dependencies for known vulnerabilities, and fail if there are any. Nothing is installed. If the
# advisories are not available, one line says so.
AUDIT := pip-audit --progress-spinner off --disable-pip --require-hashes -r requirements.txt
audit: install
	@found=$$(timeout 180 $(BIN)/uvx --quiet $(AUDIT) 2>&1 || timeout 60 python -m $(subst pip-audit,pip_audit,$(AUDIT)) 2>&1); code=$$?; \
	case "$$code $$found" in \
	*"Found "*"known vulnerabilit"*) echo "$$found"; exit 1;; \
	*"could not be audited"*) echo "audit: not done for $$(echo "$$found" | grep -c 'could not be audited') dependencies," \
		"whose advisories cannot be reached";; \
	0*) echo "audit: nothing is known against the pinned dependencies";; \
	*) echo "audit: not done, the advisories cannot be reached";; esac

# Separate targets let `make --jobs 2 check` take half the time, since mypy analyses torch for each of its two settings.
check: lint types types-of-tests
lint: install
	ruff check .
	ruff format --check .
	lint-imports
types: install
	mypy
types-of-tests: install
	mypy --config-file tests/mypy.ini

# Build the documentation in site/, which works offline. Material's notice about the future of mkdocs is disabled.
docs: install
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

# Draw the figures of docs/explained.md again; they are committed.
figures: install
	python docs/figures

# The evaluators that ours is compared with have their own environment.
PEERS := .venv/peers
$(PEERS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check $$($(BIN)/python -c \
		"import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['bench'])")
	touch $@

bench: install $(PEERS)/.installed $(SERVERS)/.installed
	for program in training_step epoch prediction scoring commands study growth; do \
		python benchmarks/$$program.py --out benchmarks/results/$$program.json || exit 1; done
	python benchmarks/coverage.py --out benchmarks/results/coverage.json
	python benchmarks/coverage.py --small --out benchmarks/results/coverage_small.json
	python benchmarks/file_to_numbers.py --peers $(PEERS)/bin/python --out benchmarks/results/file_to_numbers.json
	python benchmarks/large_data.py --images 100000 --images 1000000 --out benchmarks/results/large_data.json
	python benchmarks/shards.py --out benchmarks/results/shards.json
	python benchmarks/shards.py --number 10000 --latency 20 --out benchmarks/results/shards_late.json
	python benchmarks/page.py

bench-gpu: install
	python benchmarks/training_step.py --device cuda --batch-size 16 --steps 10 --out benchmarks/results/training_step_gpu.json
	python benchmarks/epoch.py --device cuda --batch-size 16 --number 512 --workers 8 --out benchmarks/results/epoch_gpu.json
	python benchmarks/prediction.py --device cuda --number 512 --workers 8 --out benchmarks/results/prediction_gpu.json
	python benchmarks/page.py

fix: install
	ruff check --fix .
	ruff format .

# Update the dependencies in the dvc.yaml files from the modules that each stage imports.
deps: install
	python tests/stage_deps.py

# Change single lines (tests/mutations.json) one at a time in a copy, and check that a test notices each.
mutations: install
	python tests/mutate.py

ui: install
	fcos ui

dag: install
	dvc dag

# Show experiments by `dvc exp show`, without columns that are equal everywhere, recalls and file digests.
exps: install
	COLUMNS=$${COLUMNS:-200} dvc exp show --no-pager --only-changed --drop '(AR|AP[sml]|:AP75|^(fcos|data|runs|reports|stages)/)' --sort-by metrics

# Make the images of README and docs, after `make repro`.
screenshots: install browser
	python docs/screenshots.py

# Compile a complete lock from pyproject.toml, with hashes and without download addresses.
lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --custom-compile-command "make lock" --extra dev pyproject.toml --output-file requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --custom-compile-command "make lock" deploy/requirements.in --output-file deploy/requirements.txt
