"""One rank of two: what the ranks have to agree on; see test_signals.py."""

from __future__ import annotations

import math
import os
import signal
import sys
from datetime import timedelta

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from nnunet_topo.training.guards import NonFiniteGuard, poisoned, update_weights
from nnunet_topo.training.signals import StopSignals


def main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=150)
    )
    with StopSignals(is_ddp=True) as signals:
        for step in range(1, 100):
            if rank == 1 and step == 3:
                os.kill(os.getpid(), signal.SIGUSR1)
            name = signals.pending(step, torch.device("cpu"))
            if name is not None:
                print(f"stopped at {step} by {name}")
                break

    torch.manual_seed(0)
    network = DistributedDataParallel(torch.nn.Linear(2, 1))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    guard = NonFiniteGuard(3)
    rows, norms, unchanged, cases = [], [], [], []
    for step in range(4):
        optimizer.zero_grad()
        loss = network(torch.full((1, 2), 1.0 + rank)).mean()
        if step == 1 and rank == 0:
            loss = loss + math.nan  # a constant: the gradient of this rank stays finite
        if step == 3 and rank == 1:
            loss = loss * math.inf
        poisoned(loss).backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        value = float(loss.detach())
        fault = guard.examine(value, float(norm), {"dice": value}, [f"a{rank}", f"b{rank}"])
        before = [parameter.clone() for parameter in network.parameters()]
        update_weights(optimizer, None, skip=fault is not None)
        rows.append(guard.in_a_row)
        norms.append(math.isnan(float(norm)))
        unchanged.append(all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)))
        if fault is not None:
            assert fault.after[0]["loss"] != fault.after[1]["loss"]
            cases = [case for report in fault.after for case in report["cases"]]
    print(f"in a row {rows}, cases {cases}")
    print(f"norms are nan {norms}")
    print(f"weights unchanged {unchanged}", flush=True)
    distributed.barrier()
    os._exit(0)  # gloo's threads now and then do not end


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
