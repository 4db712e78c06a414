from __future__ import annotations

import sys

import torch
from torch import Tensor

from tests.helpers.small_runs import FORKS
from training.core.adam import Adam


def trained(kind: type[torch.optim.Adam]) -> tuple[Tensor, dict[str, object]]:
    """Weights and optimizer state after five steps, the last two with a restored optimizer."""
    weights = torch.nn.Parameter(torch.linspace(-1, 1, 12))
    optimizer = kind([weights], 0.1, (0.5, 0.9), fused=True)
    for step in range(5):
        if step == 3:
            state = optimizer.state_dict()
            optimizer = kind([weights], 0.2, fused=True)
            optimizer.load_state_dict(state)
        optimizer.zero_grad()
        (weights**2).sum().backward()
        optimizer.step()
    return weights.detach(), optimizer.state_dict()["state"][0]


def test_it_is_pytorchs_adam() -> None:
    (ours, our_state), (theirs, their_state) = trained(Adam), trained(torch.optim.Adam)
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(our_state, their_state, rtol=0, atol=0)


def test_it_does_not_start_the_compiler() -> None:
    process = FORKS.Process(target=_train_without_compiler)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def _train_without_compiler() -> None:
    assert "torch._dynamo" not in sys.modules
    trained(Adam)
    assert "torch._dynamo" not in sys.modules
