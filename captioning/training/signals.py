"""Handle stop signals, so that a run stops between two steps after saving its state."""

import os
import signal
import subprocess
import sys
import threading


class StopRequest:
    """The stop signal that the run has received: SIGTERM, SIGINT (Ctrl-C) or, in a SLURM job, SIGUSR1 to requeue it.

    A Ctrl-C after any of these ends the process at once.

    Attributes:
        received: the first signal received; None so far.
    """

    REQUEUE = signal.SIGUSR1

    def __init__(self):
        self.received: signal.Signals | None = None

    def listen(self, *, slurm: bool = False) -> None:
        """Install the signal handlers; Lightning restores the former ones after training.

        Does nothing outside the main thread, where Python does not allow it.

        Args:
            slurm: whether this is a SLURM job, which also receives the signal to requeue.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT, *([self.REQUEUE] if slurm else [])):
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame) -> None:
        if self.received and number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        if not self.received:
            self.received = signal.Signals(number)
            notice = f"\n{self.received.name} received: stopping after this step. To stop at once, press Ctrl-C.\n"
            os.write(2, notice.encode())  # not print: the signal may have interrupted a print

    @property
    def status(self) -> int:
        """The exit status that shells use for the received signal: 143 for SIGTERM, 130 for Ctrl-C."""
        assert self.received is not None  # read only after a signal
        return 128 + self.received

    def requeue(self) -> None:
        """Requeue this SLURM job, if the received signal was the one for that."""
        if self.received == self.REQUEUE:
            job = os.environ.get("SLURM_ARRAY_JOB_ID")
            job = f"{job}_{os.environ['SLURM_ARRAY_TASK_ID']}" if job else os.environ["SLURM_JOB_ID"]
            try:
                done = subprocess.run(["scontrol", "requeue", job], check=False).returncode == 0
            except OSError:
                done = False
            result = "requeued" if done else f"could not be requeued. Run: scontrol requeue {job}"
            print(f"SLURM job {job} {result}", file=sys.stderr)


def ignore_in_worker(worker: int) -> None:
    """Ignore stop signals in a data loader process.

    A terminal's Ctrl-C and SLURM's signals also reach these processes. They end by themselves when the run ends.

    Args:
        worker: number of the process; unused.
    """
    for number in (signal.SIGINT, signal.SIGTERM, StopRequest.REQUEUE):
        signal.signal(number, signal.SIG_IGN)
