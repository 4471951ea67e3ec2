"""`bastion` as it is, but that nobody reads what passes for commands: the other side of the benchmark of what it costs.

A stand-in, since no option switches the detector off, and none should.
"""

from bastion.cli import main
from bastion.model import Chunk
from bastion.session.observer import Observer


def take_out_detector() -> None:
    """In this process, from now on."""

    def unseen(_: Observer, chunk: Chunk) -> None:
        pass

    Observer.seen = unseen  # type: ignore[method-assign]


if __name__ == "__main__":
    take_out_detector()
    main()
