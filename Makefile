# `make train` and `make test` set up a .venv in this folder the first time, then reuse it.
PYTHON ?= python3
BIN := .venv/bin
RUN ?= runs/scenes_soft
SCENES ?= data/scenes
# Further overrides of the training run, e.g. make train ARGS="trainer.max_epochs=2"
ARGS ?=
# Where real photographs are (flickr8k/ and coco-sample/); tests that want them are skipped without.
SHARED ?= ../shared

.PHONY: train test test-all bench lint clean

train: .venv/ready
	$(BIN)/captioning-train experiment=scenes_soft run_dir=$(RUN) overwrite=true $(ARGS)
	$(BIN)/captioning-evaluate data=scenes split=val checkpoint=$(RUN)/checkpoints/best.ckpt output=$(RUN)/val $(EVALUATE_ARGS)
	$(BIN)/captioning-caption checkpoint=$(RUN)/checkpoints/best.ckpt output=$(RUN)/figures \
		images=[$(FIGURES)]
	@echo
	@echo "checkpoint:        $(RUN)/checkpoints/best.ckpt"
	@echo "captions, scores:  $(RUN)/val/captions.json $(RUN)/val/scores.json"
	@echo "attention figures: $(RUN)/figures/"

# The first pictures of the validation split, drawn by then.
FIGURES = $(shell seq -f '$(SCENES)/val/%012.0f.png' -s, 1000001 1000004)

test: .venv/ready
	$(BIN)/python -m pytest -m "not slow" --shared=$(SHARED) $(ARGS)

test-all: .venv/ready
	$(BIN)/python -m pytest --shared=$(SHARED) $(ARGS)

# Figures of this machine into bench.json, minutes; make bench BENCH_ARGS=--quick only sees that it runs.
BENCHMARKS = $(filter-out tests/benchmarks/measure.py, $(wildcard tests/benchmarks/*.py))

bench: .venv/ready
	for script in $(BENCHMARKS); do $(BIN)/python $$script --output bench.json $(BENCH_ARGS) || exit 1; done

# Ten minutes and half an hour; docs/reliability.md has what they found.
.PHONY: fuzz soak
fuzz: .venv/ready
	PYTHONPATH=. $(BIN)/python tests/fuzzing.py --inputs 50400 $(ARGS)

soak: .venv/ready
	$(BIN)/python tests/benchmarks/soak.py --minutes 30 --figures --output bench.json $(ARGS)

lint: .venv/ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

.venv/ready: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	# One call, so that torch and torchvision agree.
	$(BIN)/python -m pip install --quiet --editable .[dev]
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
