"""Remember signals that ask a run to stop, so that it stops between two steps with everything saved."""

import os
import signal
import subprocess
import sys
import threading


class StopRequest:
    """What the run was asked by, if it was: SIGTERM, SIGINT (Ctrl-C) or, in a SLURM job, the signal to requeue it.

    A Ctrl-C after any of them ends the process at once, as if nothing had been listening.
    """

    REQUEUE = signal.SIGUSR1

    def __init__(self):
        self.received: signal.Signals | None = None

    def listen(self, *, slurm: bool = False) -> None:
        """Takes the signals over; only a process's main thread can. Lightning puts the former handlers back."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT, *([self.REQUEUE] if slurm else [])):
                signal.signal(number, self._hear)

    def _hear(self, number: int, frame) -> None:
        if self.received and number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        if not self.received:
            self.received = signal.Signals(number)
            told = f"\n{self.received.name}: stopping after this step (Ctrl-C: at once)\n"
            os.write(2, told.encode())  # print may be inside of a write that the signal came into

    @property
    def status(self) -> int:
        """The exit status that a shell gives for this signal: 143 for SIGTERM, 130 for Ctrl-C."""
        return 128 + self.received

    def requeue(self) -> None:
        """Asks SLURM to start this job again, if that is what the signal was for."""
        if self.received == self.REQUEUE:
            job = os.environ.get("SLURM_ARRAY_JOB_ID")
            job = f"{job}_{os.environ['SLURM_ARRAY_TASK_ID']}" if job else os.environ["SLURM_JOB_ID"]
            try:
                done = subprocess.run(["scontrol", "requeue", job], check=False).returncode == 0
            except OSError:
                done = False
            print(f"SLURM job {job} {'is' if done else 'could not be'} requeued", file=sys.stderr)


def ignore_in_worker(worker: int) -> None:
    """For loader processes: a terminal's Ctrl-C and SLURM's signals reach them too, and only the run may stop them.

    They end by themselves when the run does.
    """
    for number in (signal.SIGINT, signal.SIGTERM, StopRequest.REQUEUE):
        signal.signal(number, signal.SIG_IGN)
