"""Training is a generator: what it returns at its end, for tests."""


def finished(steps):
    """What a training generator returns, and its steps."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return end.value, seen
