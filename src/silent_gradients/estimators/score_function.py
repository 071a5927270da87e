"""The score-function gradient (Williams 1992) with its baselines."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from silent_gradients import checks
from silent_gradients.decoders.likelihood import Objective, readable
from silent_gradients.estimators.contract import Estimate, EstimatorError, Given, SampledEstimator, State, register
from silent_gradients.posteriors.contract import Posterior


@dataclass(frozen=True)
class ScoreFunction(SampledEstimator):
    """(objective - baseline) * grad log q(z|x), plus the objective's own gradient.

    Unbiased for every posterior whose support is the same for all parameters and for every objective, as long as the
    baseline of a sample does not depend on that sample and an image's objective depends on its own sample alone. With
    BatchNorm in training mode it depends on the batch-mates' too, and the gradient is biased.
    """

    unbiased = True
    requirement = "whose support is the same for all parameters"

    @classmethod
    def supports(cls, family: type[Posterior]) -> bool:
        return super().supports(family) and family.has_fixed_support

    @abstractmethod
    def baseline(self, observed: Tensor, expected: Tensor, index: Tensor | None, state: State) -> tuple[Tensor, State]:
        """Return the baseline, which is subtracted from the objective at each sample, and the state after this step.

        Args:
            observed: [S, B], the objective at the samples, without a gradient.
            expected: [B], the control's expectation, without a gradient; 0 unless the class ``needs_control``.
            index: [B], number of each image in the training set, or None.
            state: The state before this step.

        Returns:
            The baseline, broadcastable to [S, B] and independent of the sample it is subtracted from, and the state.

        Raises:
            EstimatorError: The index has another shape, or the state lacks entries for it.
        """

    def estimate(self, q: Posterior, objective: Objective, given: Given) -> Estimate:
        z = q.sample(self.samples, given.generator)
        value = objective.sampled(z)
        observed = value.detach()
        expected = observed.new_zeros(())
        if self.needs_control:
            assert given.control is not None
            with torch.no_grad():
                expected = given.control.expectation(q)
        baseline, state = self.baseline(observed, expected, given.index, given.state)
        surrogate = value + (observed - baseline) * q.log_prob(z)
        return Estimate(observed.mean(0), surrogate.mean(0), state)


@register
@dataclass(frozen=True)
class ReinforceNoBaseline(ScoreFunction):
    """REINFORCE without a baseline: the reference that shows what a baseline is worth."""

    name = "reinforce-no-baseline"

    def baseline(self, observed: Tensor, expected: Tensor, index: Tensor | None, state: State) -> tuple[Tensor, State]:
        return observed.new_zeros(()), state


@register
@dataclass(frozen=True)
class Reinforce(ScoreFunction):
    """The baseline is the objective's running average over images and steps (paper, Appendix B.3).

    The baseline is the running average *before* it takes in the current batch, so that it is independent of the
    samples it is subtracted from. The first step has no average yet and uses each image's batch-mates.

    Attributes:
        decay: Decay of the running average, in [0, 1).
    """

    decay: float = 0.99

    name = "reinforce"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("decay", self.decay, "a number in [0, 1)", EstimatorError)

    def initial_state(self, device: torch.device, images: int = 0) -> State:
        zero = torch.zeros((), device=device)
        return super().initial_state(device, images) | {"average": zero, "weight": zero.clone()}

    def baseline(self, observed: Tensor, expected: Tensor, index: Tensor | None, state: State) -> tuple[Tensor, State]:
        per_image = observed.mean(0)
        # ``weight`` is 1 - decay^steps: dividing by it takes out the average's start at zero.
        batch_mates = (per_image.sum() - per_image) / max(len(per_image) - 1, 1)
        average, weight = self.entry(state, "average"), self.entry(state, "weight")
        baseline = torch.where(weight > 0, average / weight.clamp(min=1 - self.decay), batch_mates)
        return baseline, state | {
            "average": self.decay * average + (1 - self.decay) * observed.mean().to(average.dtype),
            "weight": self.decay * weight + (1 - self.decay),
        }


@register
@dataclass(frozen=True)
class ReinforcePerDatum(Reinforce):
    """The baseline is the running average of the image's own earlier values.

    Images differ more from each other than the samples of one image do. An image not seen before, or from elsewhere
    (``index`` None), has the baseline of ``reinforce``.

    Attributes:
        image_decay: Decay of an image's average from visit to visit, in [0, 1). Between two visits lies an epoch, in
            which the model changes: a long memory would lag behind.
    """

    image_decay: float = 0.5

    name = "reinforce-per-datum"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("image_decay", self.image_decay, "a number in [0, 1)", EstimatorError)

    def initial_state(self, device: torch.device, images: int = 0) -> State:
        return super().initial_state(device, images) | {
            "image_average": torch.zeros(images, device=device),
            "image_weight": torch.zeros(images, device=device),
        }

    def baseline(self, observed: Tensor, expected: Tensor, index: Tensor | None, state: State) -> tuple[Tensor, State]:
        baseline, updated = super().baseline(observed, expected, index, state)
        if index is None:
            return baseline, updated
        checks.instance("index", index, Tensor)
        if index.shape != observed.shape[1:] or index.is_floating_point():
            raise EstimatorError(
                f"index: expected whole numbers, {list(observed.shape[1:])}, got {list(index.shape)} of {index.dtype}"
            )
        averages, weights = self.entry(state, "image_average"), self.entry(state, "image_weight")
        if not len(averages):
            raise EstimatorError("images: 'reinforce-per-datum' with an index needs initial_state(device, images)")
        if readable(index):
            least, largest = map(int, index.aminmax())
            if least < 0 or largest >= len(averages):
                raise EstimatorError(f"index: expected numbers below {len(averages)}, got {least} to {largest}")
        decay, average, weight = self.image_decay, averages[index], weights[index]
        baseline = torch.where(weight > 0, average / weight.clamp(min=1 - decay), baseline)
        average = decay * average + (1 - decay) * observed.mean(0).to(average.dtype)
        return baseline, updated | {
            "image_average": averages.index_copy(0, index, average),
            "image_weight": weights.index_copy(0, index, decay * weight + (1 - decay)),
        }


@register
@dataclass(frozen=True)
class Rloo(ScoreFunction):
    """REINFORCE leave-one-out (Kool et al. 2019; Salimans and Knowles 2014).

    The baseline is the mean over the image's other samples.

    Attributes:
        samples: Samples per image and step, at least 2.
    """

    samples: int = field(default=2, kw_only=True)

    name = "rloo"
    least_samples = 2

    def baseline(self, observed: Tensor, expected: Tensor, index: Tensor | None, state: State) -> tuple[Tensor, State]:
        return (observed.sum(0) - observed) / (self.samples - 1), state
