# `make train` and `make test` create a .venv in this folder the first time, and reuse it later.
PYTHON ?= python3
BIN := .venv/bin
RUN ?= runs/scenes_soft
SCENES ?= data/scenes
# Further settings of the training run, for example: make train ARGS="trainer.max_epochs=2"
ARGS ?=
# The folder with real photographs (flickr8k/ and coco-sample/); without it, tests that need them are skipped.
SHARED ?= ../shared

.PHONY: train results notebooks test test-pages test-all test-oldest test-newest kills mutants audit bench bench-compare lint clean

train: .venv/ready
	$(BIN)/captioning-train experiment=scenes_soft run_dir=$(RUN) overwrite=true $(ARGS)
	$(BIN)/captioning-evaluate data=scenes split=val checkpoint=$(RUN)/checkpoints/best.ckpt output=$(RUN)/val $(EVALUATE_ARGS)
	$(BIN)/captioning-caption checkpoint=$(RUN)/checkpoints/best.ckpt output=$(RUN)/figures \
		images=[$(FIGURES)]
	@echo
	@echo "checkpoint:        $(RUN)/checkpoints/best.ckpt"
	@echo "captions, scores:  $(RUN)/val/captions.json $(RUN)/val/scores.json"
	@echo "attention figures: $(RUN)/figures/"

# The first images of the validation split; captioning-train has drawn them by then.
FIGURES = $(shell seq -f '$(SCENES)/val/%012.0f.png' -s, 1000001 1000004)

# The rows of docs/results.md: train each experiment with each seed, and score it on val with beam 5 and METEOR (needs
# Java).
#   make results DATA=DIR RECIPES="flickr8k_fc flickr8k_soft" SEEDS="0 1 2"
DATA ?= data/flickr8k
FEATURES ?= data/features
RECIPES ?= flickr8k_fc flickr8k_nic flickr8k_soft flickr8k_hard flickr8k_hard_gumbel flickr8k_updown flickr8k_scst
SEEDS ?= 0 1 2
RESULTS ?= runs/results
# Some experiments start from flickr8k_soft with the same seed.
start = $(if $(filter flickr8k_hard% flickr8k_scst,$(firstword $(subst /, ,$(1)))),start_from=$(RESULTS)/flickr8k_soft/$(notdir $(1))/checkpoints/best.ckpt)
results: $(foreach recipe,$(RECIPES),$(foreach seed,$(SEEDS),$(RESULTS)/$(recipe)/$(seed)/val/scores.json))
	$(BIN)/python docs/results.py $(foreach recipe,$(RECIPES),$(foreach seed,$(SEEDS),$(RESULTS)/$(recipe)/$(seed)))

$(RESULTS)/%/val/scores.json: | .venv/ready
	$(BIN)/captioning-train experiment=$(firstword $(subst /, ,$*)) seed=$(notdir $*) run_dir=$(RESULTS)/$* resume=auto \
		data.root=$(DATA) features.root=$(FEATURES) trainer.enable_progress_bar=false $(call start,$*)
	$(BIN)/captioning-evaluate checkpoint=$(RESULTS)/$*/checkpoints/best.ckpt data=flickr8k data.root=$(DATA) \
		features.root=$(FEATURES) split=val decoding.beam_size=5 metrics.meteor=true output=$(RESULTS)/$*/val

# Execute all notebooks, and write copies with outputs to $(NOTEBOOKS). If they do not exist yet, small runs with soft
# attention, with hard attention and of a transformer, and a small language model are trained first. This takes minutes, and
# their captions are poor. For full-size runs, first run `make train`, `captioning-train experiment=scenes_hard
# run_dir=runs/scenes_hard`, the same for scenes_transformer (score both as `make train` does) and `captioning-train
# experiment=char_rnn run_dir=runs/char_rnn`, then:
#   make notebooks SOFT=runs/scenes_soft HARD=runs/scenes_hard TRANSFORMER=runs/scenes_transformer TEXT=runs/char_rnn \
#       SMALL_SCENES=data/scenes SMALL=
NOTEBOOKS ?= runs/notebooks
SOFT ?= $(NOTEBOOKS)/soft
HARD ?= $(NOTEBOOKS)/hard
TRANSFORMER ?= $(NOTEBOOKS)/transformer
TEXT ?= $(NOTEBOOKS)/text
SMALL_SCENES ?= data/scenes_small
SMALL ?= data.reader.train=300 data.reader.val=60 data.reader.test=20
COMMA := ,

notebooks: .venv/ready $(SOFT)/val/scores.json $(HARD)/val/scores.json $(TRANSFORMER)/val/scores.json \
		$(TEXT)/checkpoints/best.ckpt
	$(BIN)/python notebooks/execute.py $(NOTEBOOKS) \
		'CHECKPOINT="../$(SOFT)/checkpoints/best.ckpt"' 'IMAGE_FOLDER="../$(SMALL_SCENES)/val"' 'FIRST=0' \
		'SOFT="../$(SOFT)/checkpoints/best.ckpt"' 'HARD="../$(HARD)/checkpoints/best.ckpt"' \
		'TRANSFORMER="../$(TRANSFORMER)/checkpoints/best.ckpt"' \
		'LANGUAGE_MODEL="../$(TEXT)/checkpoints/best.ckpt"' 'HELLO="../$(NOTEBOOKS)/hello"' \
		'FEATURES="../$(NOTEBOOKS)/features"' 'RUNS={"soft": "../$(SOFT)", "hard": "../$(HARD)"}' \
		'DATA=["data=scenes", "data.root=../$(SMALL_SCENES)"$(foreach each,$(SMALL),$(COMMA) "$(each)")]'

$(NOTEBOOKS)/%/val/scores.json: | .venv/ready
	$(BIN)/captioning-train experiment=scenes_$* run_dir=$(NOTEBOOKS)/$* overwrite=true data.root=$(SMALL_SCENES) $(SMALL) \
		trainer.max_epochs=6 schedule.warmup=20 weight_averaging.decay=0.9 trainer.enable_progress_bar=false
	$(BIN)/captioning-evaluate data=scenes split=val data.root=$(SMALL_SCENES) $(SMALL) \
		checkpoint=$(NOTEBOOKS)/$*/checkpoints/best.ckpt output=$(NOTEBOOKS)/$*/val

$(NOTEBOOKS)/text/checkpoints/best.ckpt: | .venv/ready
	$(BIN)/captioning-train experiment=char_rnn run_dir=$(NOTEBOOKS)/text overwrite=true data.reader.characters=1500000 \
		model.width=96 model.layers=1 trainer.max_epochs=1 trainer.enable_progress_bar=false

# One process per core, with one thread each; with more threads they would wait for one another.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

test: .venv/ready
	$(PYTEST) -m "not slow and not pages" --shared=$(SHARED) $(ARGS)

# Runs every command and every Python example of README.md and docs/ on miniature data.
test-pages: .venv/ready
	$(PYTEST) -m pages $(ARGS)

test-all: .venv/ready
	$(PYTEST) --shared=$(SHARED) $(ARGS)

# Kill training processes at 20 random moments and resume them; see docs/reliability.md.
kills: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python tests/robustness/kills.py --kills 20 --stops 8 $(ARGS)

# Plant the faults listed in tests/mutants/, one at a time, in a copy of the package, and print those that no test detects;
# see docs/contributing.md.
#   make mutants ARGS="--only decoding"
mutants: .venv/ready
	$(BIN)/python tests/mutants/run.py $(ARGS)

# Run the tests with the oldest and the newest versions that setup.cfg allows; see docs/maintaining.md.
test-oldest: CONSTRAINTS = --constraint tests/oldest.txt
test-oldest test-newest: test-%:
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager $(CONSTRAINTS) --editable .[dev]
	.venv-$*/bin/python -m pip freeze --exclude-editable > .venv-$*/versions.txt
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest -n auto --dist loadfile -m "not slow and not pages" --shared=$(SHARED) $(ARGS)

# List known vulnerabilities of the packages in .venv; this queries a database over the network.
audit: .venv/ready
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip_audit --local --skip-editable

# Measure the speed on this machine and write bench.json; this takes long. `make bench BENCH_ARGS=--quick` only tests that
# the benchmarks run. `make bench-compare OLD=before.json` compares the results with an earlier run.
BENCHMARKS = $(filter-out %/measure.py %/compare.py %/soak.py %/simulate.py, $(wildcard tests/benchmarks/*.py))
NEW ?= bench.json

bench: .venv/ready
	for script in $(BENCHMARKS); do \
		$(BIN)/python $$script --shared $(SHARED) --output bench.json $(BENCH_ARGS) || exit 1; done
	$(BIN)/python tests/benchmarks/compare.py bench.json

bench-compare: .venv/ready
	@test -n "$(OLD)" || { echo "error: make bench-compare OLD=before.json [NEW=bench.json]"; exit 1; }
	$(BIN)/python tests/benchmarks/compare.py $(OLD) $(NEW)

# fuzz takes ten minutes, soak half an hour; docs/reliability.md lists what they found.
.PHONY: fuzz soak
fuzz: .venv/ready
	PYTHONPATH=. $(BIN)/python tests/robustness/fuzzing.py --inputs 57600 $(ARGS)

soak: .venv/ready
	$(BIN)/python tests/benchmarks/soak.py --minutes 30 --figures --output bench.json $(ARGS)

# Build the documentation site in site/; a warning is an error. Open site/index.html, or run .venv/bin/mkdocs serve.
.PHONY: docs
SITE ?= site
docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir $(SITE)

.venv/docs: .venv/ready
	$(BIN)/python -m pip install --quiet --editable .[docs]
	touch $@

lint: .venv/ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

.venv/ready: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	# One call installs everything, so that the versions of torch and torchvision match.
	$(BIN)/python -m pip install --quiet --editable .[dev,notebooks]
	touch $@

clean:
	rm -rf .venv .venv-oldest .venv-newest build dist site *.egg-info
