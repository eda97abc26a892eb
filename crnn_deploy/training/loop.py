"""The training loop."""

from __future__ import annotations

import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import torch
from torch import Tensor, distributed

from crnn_deploy.datasets import Dataset, Labelled
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.export.checkpoints.finite import first_not_finite, why_not_finite
from crnn_deploy.export.pytorch import ReferenceBackend
from crnn_deploy.manifest import Manifest
from crnn_deploy.metrics import Score
from crnn_deploy.process import Stop
from crnn_deploy.quantization.qat import quantization_aware
from crnn_deploy.synthesis.dataset import SyntheticDataset
from crnn_deploy.synthesis.font_pack import Material, unpacked
from crnn_deploy.synthesis.fonts import write_font_manifest
from crnn_deploy.training import state
from crnn_deploy.training.clock import Clock
from crnn_deploy.training.config import Config
from crnn_deploy.training.copies import is_asynchronous, on_device
from crnn_deploy.training.data import BatchStream, TrainingBatch, batches_from
from crnn_deploy.training.divergence import Divergence, TrainingDiverged
from crnn_deploy.training.journal import Journal
from crnn_deploy.training.learner import Learner
from crnn_deploy.training.model import Model, build, train_mode
from crnn_deploy.training.optimize import factor
from crnn_deploy.training.sources import TrainingDataInvalid, faces_of, open_source, open_sources
from crnn_deploy.training.survey import survey
from crnn_deploy.training.validate import validate

__all__ = ["Outcome", "PrecisionImpossible", "RunExists", "train"]

_RELEASED = 1.0  # seconds within which gloo releases a tensor
_MEASURED = 16  # batches, of the ranges of activations before a training for INT8


class RunExists(CrnnDeployError, FileExistsError):
    """A folder that holds another training."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} holds a training already; go on with it (--resume), or name another `out`")


class PrecisionImpossible(CrnnDeployError, ValueError):
    """A number format that this machine does not train in."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    step: int  # steps done in all
    stopped: bool  # by a signal, before its last step
    late: bool  # the time was spent, before its last step or before the validation after it
    scores: Mapping[str, Score]  # of the last validation


def train(
    config: Config,
    *,
    resume: bool = False,
    until: float | None = None,
    told: Callable[[str], object] = lambda line: None,
    during: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> Outcome:
    """Train until the last step, a signal, or the end of the time. Under torchrun, every process calls it.

    until: when it should have ended, as `time.monotonic` says it; one step is done in any case
    told: called, in the first process, with a line for each source of images on disk: how many of its
        samples are used, and why the others are not
    during: makes the context, in the first process, in which a source on disk is looked at; called with what
        is done there, in words
    Raises RunExists, ResumeImpossible, PrecisionImpossible, TrainingDiverged in the first process, and what
    opening data and checkpoints raises.
    """
    with ExitStack() as stack:
        rank, world, device = stack.enter_context(_processes(config))
        if config.precision == "fp16" and device.type != "cuda":
            raise PrecisionImpossible("fp16 needs a GPU; on a CPU take bf16 or fp32")
        last = config.out / state.LAST
        if last.exists() and not resume:
            raise RunExists(config.out)
        torch.manual_seed(config.seed)
        model = build(config)
        material = stack.enter_context(unpacked(config.font_pack)) if config.font_pack else None
        first_told = told if rank == 0 else (lambda line: None)
        sources = open_sources(config, model.manifest.alphabet, material, first_told)
        datasets = [dataset for dataset, _ in sources]
        if not _surveyed(config, datasets, model.manifest, told, during, rank, world, device):
            return Outcome(0, False, False, {})
        if config.qat is not None:
            # on the images of the first process, so that all have the same ranges
            first = batches_from(BatchStream(sources, model.manifest, config), 0, _MEASURED, config.window, 0)
            reference = ReferenceBackend(model.module, model.manifest)
            quantization_aware(reference, (batch.images for batch in islice(first, _MEASURED)), config.qat)
        stream = BatchStream(sources, model.manifest, config, rank=rank, world=world)
        validation = {
            name: open_source(
                source, model.manifest.alphabet, _validation_seed(name), material, cache=config.cache.opened()
            )
            for name, source in config.validation.items()
            if rank == 0
        }
        run = _Run(config, model, stream, device, rank, world, Clock(until))
        if resume:
            run.resume(last)
        if rank == 0:
            config.out.mkdir(parents=True, exist_ok=True)
            _write_fonts(config, material)
            run.journal = stack.enter_context(Journal(config.out, config.steps, run.step))
        stop = stack.enter_context(Stop(finishes="when this step is saved"))
        return run.go(validation, stop)


class _Run:
    def __init__(
        self,
        config: Config,
        model: Model,
        stream: BatchStream,
        device: torch.device,
        rank: int,
        world: int,
        clock: Clock,
    ) -> None:
        self.config, self.model, self.stream = config, model, stream
        self.device, self.rank, self.world, self.clock = device, rank, world, clock
        self.journal: Journal | None = None
        self.step, self.best = 0, -1.0
        self.learner = Learner(config, model, device, world)
        self._kept: int | None = None  # step that last.pth holds
        behind = 1 if is_asynchronous(device) and world == 1 else 0
        self._divergence = Divergence(behind=behind)

    def resume(self, path: Path) -> None:
        self.step, self.best = state.load(
            path,
            self.model.weights,
            self.model.manifest,
            self._average_state(),
            self.learner.optimizer,
            self.learner.scaler,
            self.config,
            self.world,
        )
        self._kept = self.step

    def go(self, validation: Mapping[str, Dataset], stop: Stop) -> Outcome:
        config, clock = self.config, self.clock
        freeze = config.start is not None and config.start.freeze_cnn
        train_mode(self.model.module, freeze)
        scores: Mapping[str, Score] = {}
        losses: list[Tensor] = []
        batches, first = on_device(self._batches(), self.device), self.step
        stopped = late = False
        while self.step < config.steps and not stopped and not late:
            rate = config.optimizer.lr * factor(config.schedule, self.step, config.steps)
            with clock.timed("first batch" if self.step == first else "step"):
                losses.append(self.learner.learn(next(batches), self.step, rate))
            self.step += 1
            last = self.step == config.steps
            validates = bool(config.validation) and (self.step % config.validate_every == 0 or last)
            keeps = config.keep_every is not None and self.step % config.keep_every == 0
            saves = validates or keeps or last or self.step % config.save_every == 0
            self._divergence.add(self.step, rate, losses[-1], self.learner.norm)
            wrong = self._divergence.found(self.learner.scaler, now=saves)
            stopped, late, diverged = self._agreed(stop(), not last and not clock.fits("step"), bool(wrong))
            ended = stopped or late or last
            if (saves or ended) and not diverged:
                wrong = self._divergence.found(self.learner.scaler, now=True) or self._not_finite(rate)
                [diverged] = self._agreed(bool(wrong))
            if diverged:
                if self.rank != 0:  # the first process tells it
                    break
                raise TrainingDiverged(self._remedied(wrong or "another process's loss is not finite"))
            if self.rank != 0:
                losses.clear()
                continue
            assert self.journal is not None
            if self.step % config.log_every == 0 or ended:
                self.journal.learned(self.step, float(torch.stack(losses).mean()), rate)
                losses.clear()
            # before a validation, so that nothing that ends one ends more than that
            saved = ended or (self.step % config.save_every == 0 and clock.fits("save"))
            if saved:
                with clock.timed("save"):
                    self._save_training()
            if keeps:
                self._save_weights(f"step-{self.step:07}.pth")
            if validates:
                best, scores = self.best, self._validated(validation)
                train_mode(self.model.module, freeze)
                late = late or (last and not scores)
                if saved and self.best > best:
                    with clock.timed("save"):
                        self._save_training()  # so that a resumed run knows what its weights must beat
        return Outcome(self.step, stopped, late, scores)

    def _batches(self) -> Iterator[TrainingBatch]:
        config = self.config
        return batches_from(
            *(self.stream, self.step, config.steps, config.window, config.workers),
            pinned=is_asynchronous(self.device),
        )

    def _validated(self, validation: Mapping[str, Dataset]) -> Mapping[str, Score]:
        """The scores of a validation, empty where there is no time for one; the best weights are kept."""
        assert self.journal is not None
        if not self.clock.fits("validation"):
            return {}
        with self.clock.timed("validation"), self._averaged():
            scores = validate(
                *(self.model, validation, self.device, self.step, self.journal),
                ignore_case=self.config.ignore_case,
                ended=lambda: not self.clock.fits("step"),
            )
        accuracy = sum(score.accuracy for score in scores.values()) / len(scores) if scores else -1.0
        if accuracy > self.best:
            self.best = accuracy
            self._save_weights("best.pth")
        return scores

    def _agreed(self, *flags: bool) -> list[bool]:
        """Of each flag, whether any process has it."""
        return _of_any(flags, self.world, self.device)

    def _not_finite(self, rate: float) -> str | None:
        """What is wrong with the state that is about to be kept; None where nothing is."""
        found = state.tensors_of(self.model.weights, self._average_state(), self.learner.optimizer)
        name = first_not_finite(found)
        if name is None:
            return None
        holds = f"{name} holds {why_not_finite(found[name])}"
        return f"{holds} after step {self.step} at a learning rate of {rate:g}"

    def _remedied(self, wrong: str) -> str:
        """What is wrong, and how to go on."""
        lower = f"at a lower learning rate, such as --set optimizer.lr={self.config.optimizer.lr / 10:g}"
        if self.config.precision == "fp16":
            lower += ", or with --set precision=bf16 in a new `out`"
        last = self.config.out / state.LAST
        if self._kept is None:
            return f"{wrong}, and nothing was saved yet; start again {lower}"
        return f"{wrong}; {last} still holds step {self._kept}: go on from it with --resume {lower}"

    def _averaged(self) -> AbstractContextManager[None]:
        average = self.learner.average
        return average.swapped() if average else nullcontext()

    def _average_state(self) -> dict[str, Tensor] | None:
        average = self.learner.average
        return average.state if average else None

    def _save_weights(self, name: str) -> None:
        state.save_weights(
            self.config.out / name, self.model.weights, self.model.manifest, self._average_state()
        )

    def _save_training(self) -> None:
        state.save_training(
            self.config.out / state.LAST,
            self.model.weights,
            self.model.manifest,
            self._average_state(),
            self.learner.optimizer,
            self.learner.scaler,
            self.config,
            step=self.step,
            best=self.best,
            world=self.world,
        )
        self._kept = self.step


def _of_any(flags: Sequence[bool], world: int, device: torch.device) -> list[bool]:
    """Of each flag, whether any process has it."""
    if world == 1:
        return list(flags)
    told = torch.tensor([float(flag) for flag in flags], device=device)
    held = sys.getrefcount(told)
    distributed.all_reduce(told)
    if device.type == "cpu":
        # a thread of gloo releases the tensor a moment later; if Python ends before that, the process aborts
        until = time.monotonic() + _RELEASED
        while sys.getrefcount(told) > held and time.monotonic() < until:
            time.sleep(0)
    return [count > 0 for count in told.tolist()]


def _surveyed(
    config: Config,
    datasets: Sequence[Labelled | SyntheticDataset],
    manifest: Manifest,
    told: Callable[[str], object],
    during: Callable[[str], AbstractContextManager[object]],
    rank: int,
    world: int,
    device: torch.device,
) -> bool:
    """Whether so much of every source on disk can be trained on as `max_dropped` says.

    The first process looks, and raises TrainingDataInvalid where it is not so.
    """
    refused: list[str] = []
    for at, dataset in enumerate(datasets if rank == 0 else ()):
        if isinstance(dataset, SyntheticDataset):
            continue
        name = f"train.{at} {config.train[at].path}"
        with during(f"look at the labels and images of {name}"):
            found = survey(dataset, manifest, ignore_case=config.ignore_case)
        line = f"{name}: {found.told()}"
        if found.share > config.max_dropped or found.share == 1:
            refused.append(line)
        else:
            told(line)
    [none] = _of_any([bool(refused)], world, device)
    if refused:
        raise TrainingDataInvalid(
            f"{'; '.join(refused)}; more than max_dropped={config.max_dropped:g} of a source would be left "
            "out: mend it (crnn-deploy dataset check names every sample), or train on the rest with a higher "
            "max_dropped"
        )
    return not none


@contextmanager
def _processes(config: Config) -> Iterator[tuple[int, int, torch.device]]:
    """Rank, number of processes, and this process's device; set up as torchrun says."""
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(config.threads)  # a worker has no more either: its copy of a pool of threads has none
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if "RANK" not in os.environ:
        yield 0, 1, device
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield distributed.get_rank(), distributed.get_world_size(), device
    finally:
        distributed.destroy_process_group()


def _validation_seed(name: str) -> int:
    """Of drawn images: the same for a name in every training."""
    return zlib.crc32(name.encode())


def _write_fonts(config: Config, material: Material | None) -> None:
    drawn = [source.synthetic for source in (*config.train, *config.validation.values()) if source.synthetic]
    faces = {face for synthetic in drawn for face in faces_of(synthetic, material)}
    if faces:
        write_font_manifest(sorted(faces, key=lambda face: face.path), config.out / "fonts.json")
