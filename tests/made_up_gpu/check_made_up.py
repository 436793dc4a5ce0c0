"Does the GPU that is made up refuse what a GPU refuses?"
import pytest
import torch
from torch import nn


def test_it_computes_as_the_cpu_does():
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3), torch.randn(8, 4), torch.randint(3, (8,))
    other = nn.Linear(4, 3)
    other.load_state_dict(model.state_dict())
    weight = other.weight
    other.to('cuda')
    assert weight is other.weight and weight.is_cuda
    for net, inputs, labels in ((model, x, y), (other, x.cuda(), y.to('cuda'))):
        opt = torch.optim.SGD(net.parameters(), lr=.1, momentum=.9)
        for _ in range(3):
            nn.functional.cross_entropy(net(inputs), labels).backward()
            opt.step()
            opt.zero_grad()
    torch.testing.assert_close(other.weight.cpu(), model.weight)


@pytest.mark.parametrize('wrong', [
    lambda here, there: here + there, lambda here, there: there @ here,
    lambda here, there: torch.cat([here, there]), lambda here, there: there.add_(here),
    lambda here, there: torch.equal(here, there), lambda here, there: here[there.argmax(1)],
    lambda here, there: there.index_select(0, torch.tensor([0])),
    lambda here, there: nn.functional.cross_entropy(there, torch.tensor([0, 1, 1]))])
def test_tensors_of_two_devices_are_refused(wrong):
    with pytest.raises(RuntimeError, match='same device'):
        wrong(torch.ones(3, 3), torch.ones(3, 3, device='cuda'))


def test_what_a_gpu_takes_from_the_cpu():
    there = torch.arange(3., device='cuda')
    assert (there*torch.tensor(2.)).tolist() == [0, 2, 4]  # a number
    assert there[torch.tensor([2, 0])].tolist() == [2, 0]
    with pytest.raises(TypeError, match='numpy'): there.numpy()


@pytest.mark.parametrize('waits', [
    lambda o: o.sum().item(), lambda o: o.tolist(), lambda o: o.cpu(), lambda o: o[o > 1],
    lambda o: bool((o > 1).any()), lambda o: o.nonzero(), lambda o: float(o.sum()),
    lambda o: torch.ones(3).to('cuda'), lambda o: o.copy_(torch.ones(3)),
    lambda o: o[torch.tensor([0])]])
def test_waiting_is_an_error_where_it_is_forbidden(waits):
    there = torch.arange(3., device='cuda')
    waits(there)
    torch.cuda.set_sync_debug_mode('error')
    try:
        with pytest.raises(RuntimeError, match='synchronizing'): waits(there)
    finally: torch.cuda.set_sync_debug_mode('default')


def test_what_waits_for_nothing():
    there = torch.arange(3., device='cuda')
    torch.cuda.set_sync_debug_mode('error')
    try:
        there.add_(torch.ones(3).to('cuda', non_blocking=True))
        there.copy_(torch.ones(3), non_blocking=True)
        torch.empty(3, pin_memory=True).copy_(there, non_blocking=True)
        there.argmax(0)
    finally: torch.cuda.set_sync_debug_mode('default')
