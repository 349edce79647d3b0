"""How far a run is and what it has met; equal on all ranks, part of every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainer.order import Order


@dataclass(frozen=True)
class Progress:
    """Counts of a run since its first step.

    Attributes:
        step: steps done.
        epoch, step_of_epoch: where the next one is.
        pairs: samples that were trained on.
        broken: samples that the loss left out.
        dropped: samples at the ends of epochs, fewer than a batch each time.
        skipped, skipped_in_a_row: steps without finite gradients, which changed nothing.
    """

    step: int = 0
    epoch: int = 0
    step_of_epoch: int = 0
    pairs: int = 0
    broken: int = 0
    dropped: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0

    def total(self, epochs: int, steps: int) -> int:
        """Steps of a run whose epochs, from this one on, have so many each.

        Earlier ones may have had others: shards may change between two epochs.
        """
        return self.step - self.step_of_epoch + (epochs - self.epoch) * steps

    def after(self, finite: bool, pairs: int, batch: int, order: Order) -> Progress:
        """The progress after a step of the epoch that `order` is of, with so many fine pairs."""
        ends = self.step_of_epoch + 1 == order.steps(batch)
        return replace(
            self,
            step=self.step + 1,
            epoch=self.epoch + ends,
            step_of_epoch=0 if ends else self.step_of_epoch + 1,
            pairs=self.pairs + pairs,
            broken=self.broken + batch - pairs,
            dropped=self.dropped + (order.dropped(batch) if ends else 0),
            skipped=self.skipped + (not finite),
            skipped_in_a_row=0 if finite else self.skipped_in_a_row + 1,
        )
