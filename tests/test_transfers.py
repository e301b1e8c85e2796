"""Copies off a device are what was there when they were begun, and are complete when they have been waited for."""

import torch

from activation_cache.transfers import begin_copy, own_stream


def test_copies_are_the_tensors_as_they_were_and_stay_so():
    sources = torch.arange(6.0).view(2, 3), torch.tensor([True, False]), torch.empty(0, dtype=torch.int64)
    expected = [source.clone() for source in sources]
    arriving = begin_copy(sources, own_stream("cpu"))
    sources[0].zero_()
    sources[1].zero_()
    copies = arriving.wait()
    assert all(torch.equal(*pair) and pair[0].dtype == pair[1].dtype for pair in zip(copies, expected, strict=True))


def test_a_copy_follows_what_computes_its_source_and_is_waited_for(monkeypatch):
    """The calls that order streams of a GPU, in the order in which they are made; those of a CPU do nothing."""
    said = []
    module = torch.get_device_module("cpu")
    for owner, name in ((module.Stream, "wait_stream"), (module.Event, "record"), (module.Event, "synchronize")):
        monkeypatch.setattr(owner, name, lambda *_, name=name: said.append(name))
    arriving = begin_copy((torch.zeros(3),), own_stream("cpu"))
    assert said == ["wait_stream", "record"]
    arriving.wait()
    assert said == ["wait_stream", "record", "synchronize"]
