"""A run under way: steps on the device, and what happens between them on the host."""

import contextlib
import math
import time
from collections.abc import Callable
from typing import NoReturn, final

import jax
from jaxtyping import PyTree

from ._batches import Examples, nonfinite_numbers
from ._callbacks import Event
from ._checkpoint_file import resume_run, save_run
from ._outcome import Fitted, Record, TrainingError
from ._plan import Plan
from ._programs import CHUNK, Evaluation, Keys, Programs, Trace, to_host
from ._step import TrainState, all_finite, average_of, is_forgiving


_PACE = 0.2
"""Seconds after which the host looks at what the device has done."""


@final
class Run:
    """A run under way.

    **Attributes:**

    - `step`: how many steps have been taken, as far as the host knows: the device may be ahead.
    """

    def __init__(self, plan: Plan):
        self._plan = plan
        state, self._record, self._stopped = plan.begin, Record(), None
        self._saved: int | None = None
        if plan.checkpoint is not None:
            plan.checkpoint.prepare()
            latest = plan.checkpoint.latest()
            if latest is not None:
                state, self._record, self._stopped = resume_run(latest, plan)
                self._saved = int(state.step)
        self.step = int(state.step)
        if self._stopped == "steps" and self.step < plan.steps:
            self._stopped = None  # it is to go on for longer
        shuffle, noise, held = (jax.random.fold_in(plan.key, i) for i in range(3))
        self._keys = Keys(shuffle, noise)
        self._programs = Programs(plan.loss, plan.optimizer, state)
        self._at = self._programs.begin(state, plan.data, self._keys)
        self._pending: list[tuple[Trace, int, PyTree]] = []
        validation = plan.validation
        self._evaluation = None if validation is None else Evaluation(plan.loss, plan.metrics, validation, held)
        if not isinstance(plan.data, Examples):
            plan.data.skip(self.step)
        self._pace, self._compiled, self._clock = 1, False, time.monotonic()

    def to_the_end(self, show: Callable[[int, float], None]) -> Fitted:
        """Take the steps that are left."""
        try:
            while self._stopped is None:
                loss = self._advance(self._next_stop() - self.step)
                show(self.step, loss)
                self._look()
                if self._stopped is None and self.step == self._plan.steps:
                    self._stopped = "steps"
                self._save_if_due()
            if isinstance(self._plan.data, Examples):  # else the loader has run too
                self._programs.own_changes()
        except TrainingError:
            raise
        except BaseException:  # an interrupt, or an error of the user's loader or callback
            with contextlib.suppress(Exception):  # that one is to be heard of
                self._wait()
                self._save()
            raise
        return self._result(self._stopped)

    # --- steps --------------------------------------------------------------------------------------------------------

    def _next_stop(self) -> int:
        """The next step at which the host has something to do."""
        plan, step = self._plan, self.step
        periods = [plan.log_every]
        periods += [plan.validate_every] if self._evaluation is not None else []
        periods += [plan.checkpoint.every] if plan.checkpoint is not None and plan.checkpoint.every is not None else []
        return min(plan.steps, step + self._pace, *((step // period + 1) * period for period in periods))

    def _advance(self, count: int) -> float:
        """Take some steps, and learn how they went; the loss of the last."""
        began = time.monotonic()
        taken = 0
        while taken < count:
            taken += self._start(count - taken)
        loss = self._wait()
        if self._compiled:
            each = max((time.monotonic() - began) / count, 1e-9)
            self._pace = int(min(4 * self._pace, max(1, _PACE / each)))
        self._compiled = True
        return loss

    def _start(self, most: int) -> int:
        """Set the device to work on some steps; how many."""
        data = self._plan.data
        if isinstance(data, Examples):
            count, batch = min(most, CHUNK), data.arrays
            self._at, trace = self._programs.many(self._at, data, count, self._keys)
        else:
            count, batch = 1, data.next()
            self._at, trace = self._programs.one(self._at, batch, self._keys)
        self._pending.append((trace, count, batch))
        return count

    def _wait(self) -> float:
        """Wait for the device, and take down what it did; the loss of the last step."""
        pending, self._pending = self._pending, []
        if not pending:
            return math.nan
        step, sound = jax.device_get((self._at.step, self._at.sound))
        found = to_host([trace for trace, _, _ in pending], [count for _, count, _ in pending])
        done = int(step) - self.step
        self._record.add({name: values[:done] for name, values in found.items()})
        self.step = int(step)
        if not sound:
            batches = [batch for _, count, batch in pending for _ in range(count)]
            self._fail(float(found["loss"][done]), batches[done])
        return float(found["loss"][-1])

    def _fail(self, loss: float, batch: PyTree) -> NoReturn:
        """Say what of the next step is not finite."""
        number = self.step + 1
        what = f"the loss of step {number} is {loss}"
        if is_forgiving(self._plan.begin.opt_state):
            what = f"the optimiser no longer leaves out what is not finite: at step {number} the loss is {loss}"
        elif math.isfinite(loss):
            what = f"the gradient of step {number} is not finite (its loss is {loss:.6g})"
        hints = []
        if not bool(all_finite(self._at.leaves)):
            hints.append("the parameters are no longer finite: try a smaller learning rate, or clipping")
        if bad := nonfinite_numbers(batch):
            hints.append(f"{bad} numbers of the data are NaN or infinite")
        why = f" ({'; '.join(hints)})" if hints else ""
        self._end(what + why)

    def _end(self, what: str) -> NoReturn:
        kept = "" if self._saved is None else f", and the last checkpoint is that of step {self._saved}"
        message = f"fit: {what}; `error.result` holds the model after step {self.step}{kept}."
        raise TrainingError(message, self._result("failed"))

    # --- what happens between steps -----------------------------------------------------------------------------------

    def _look(self) -> None:
        """Log, validate, call back, and stop if any of them says so."""
        plan, step, last = self._plan, self.step, self.step == self._plan.steps
        validating = self._evaluation is not None and (step % plan.validate_every == 0 or last)
        if not (step % plan.log_every == 0 or validating or last):
            return
        metrics = self._record.close_window()
        if validating:
            metrics |= self._validate()
        self._record.log(step, metrics)
        if plan.callbacks:
            batches = plan.data.batches
            epoch = math.nan if batches is None else step / batches
            event = Event(step, epoch, metrics, self._averaged().model)
            self._programs.own_changes()
            asked = [callback(event) for callback in plan.callbacks]  # every one of them is told
            self._programs.look_again()  # a callback may have changed the loss
            if self._stopped is None and any(answer is True for answer in asked):
                self._stopped = "callback"

    def _validate(self) -> dict[str, float]:
        """What validation gives, and whether that ends the run."""
        assert self._evaluation is not None
        state, early = self._averaged(), self._plan.early
        found = {f"validation/{name}": value for name, value in self._evaluation(state.model).items()}
        if early is not None:
            if early.monitor not in found:
                raise ValueError(f"fit: `early_stopping` must monitor one of {list(found)}, got {early.monitor!r}.")
            if self._record.judge(early, found[early.monitor], self.step, state):
                self._stopped = "early"
        return found

    def _averaged(self) -> TrainState:
        """Where training is, with the parameters that the user wants to be judged and given."""
        state = self._programs.state(self._at)
        return state if self._plan.averaged is None else average_of(state, self._plan.averaged)

    def _save_if_due(self) -> None:
        checkpoint = self._plan.checkpoint
        if checkpoint is None:
            return
        waited = time.monotonic() - self._clock
        due = waited >= checkpoint.seconds if checkpoint.every is None else self.step % checkpoint.every == 0
        if due or self._stopped is not None:
            self._save()

    def _save(self) -> None:
        checkpoint = self._plan.checkpoint
        if checkpoint is None or ((self._saved or 0) == self.step and self._stopped is None):
            return  # nothing new; a mistake in the very first step leaves no file, which the mended run would refuse
        state = self._programs.state(self._at)
        if not bool(all_finite(state.params)):
            self._end(f"the parameters after step {self.step} are not finite: try a smaller learning rate, or clipping")
        try:
            save_run(checkpoint.file(self.step), self._plan, state, self._record, self._stopped)
        except OSError as error:
            reason = error.strerror or str(error)
            message = f"the checkpoint of step {self.step} cannot be written to {checkpoint.folder}: {reason}"
            self._end(message)
        self._saved, self._clock = self.step, time.monotonic()
        checkpoint.prune()

    def _result(self, stopped: str) -> Fitted:
        record = self._record
        return Fitted(
            model=(self._averaged() if record.best is None else record.best).model,
            losses=record.losses(),
            history=record.history(),
            steps=self.step,
            stopped=stopped,
            best_step=record.best_step,
            state=self._programs.state(self._at),
        )
