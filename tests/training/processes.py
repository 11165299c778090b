"""What two processes of a test run; apart from it, so that they start with few imports."""

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from captioning.data import CaptionBatch
from captioning.objectives import CrossEntropy


class Objective(nn.Module):
    """A model with its loss, as the trainer's strategy wraps them."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.objective = model, CrossEntropy(doubly_stochastic=0.7)

    def forward(self, batch: CaptionBatch) -> torch.Tensor:
        return self.objective(self.model, batch).total


def of_images(batch: CaptionBatch, images: slice) -> CaptionBatch:
    return CaptionBatch(*(None if part is None else part[images] for part in batch))


def learn(rank: int, folder: str) -> None:
    """One of two processes: the first two images, or the third."""
    model, batch = torch.load(f"{folder}/whole.pt", weights_only=False)
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    part = of_images(batch, slice(0, 2) if rank == 0 else slice(2, 3))
    own = DistributedDataParallel(Objective(model.train()))
    loss = own(part)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in own.module.model.named_parameters()}
    model.eval()  # then a process asks nobody: the other may have no such batch
    seen = own.module(part).item() if rank == 0 else None
    torch.save((loss.item(), gradients, seen), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()
