"""What happened in a run: losses and learning rates by step, validation scores, time, memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lib.evaluation.provenance import peak_gpu_memory_mb, peak_memory_mb


@dataclass
class History:
    """The record of one run; a resumed run continues it.

    Attributes:
        score: the validation score that decides which weights are best (higher is better).
        steps: one dict a step: "step" (1 is the first), the losses by name, "learning_rate" (and
            "learning_rate_2", ... for further optimisers), "seconds" of the run so far.
        validations: one dict a validation: "step" (steps done) and the scores.
        best_step: steps done when ``score`` was highest; the earlier one of equals. None before
            the first validation.
        best_state: the method's state dict at ``best_step``, on the CPU. It is restored by
            ``method.load_state_dict(history.best_state)``.
        peak_memory_mb: largest resident size of the process since its start, whatever filled it.
        peak_gpu_memory_mb: most memory that torch held on one GPU; None without a GPU.
    """

    score: str = "dice"
    steps: list[dict[str, float]] = field(default_factory=list)
    validations: list[dict[str, float]] = field(default_factory=list)
    best_step: int | None = None
    best_state: dict[str, Any] | None = None
    peak_memory_mb: float = 0.0
    peak_gpu_memory_mb: float | None = None

    @property
    def seconds(self) -> float:
        """Wall time of all steps that count, validation and saving included."""
        return self.steps[-1]["seconds"] if self.steps else 0.0

    @property
    def best_score(self) -> float | None:
        """The highest validation score, or None."""
        scores = [row[self.score] for row in self.validations if row["step"] == self.best_step]
        return scores[0] if scores else None

    def add_validation(self, step: int, scores: dict[str, float], method: torch.nn.Module) -> None:
        """Write down the scores after ``step`` steps and keep the weights if they are the best.

        Raises:
            KeyError: if the score that decides is not among ``scores``.
        """
        if self.score not in scores:
            raise KeyError(
                f"validate() returned {sorted(scores)} without the score {self.score!r} that "
                "decides which weights are best; pass fit(..., score=...) one of its names"
            )
        best = self.best_score
        value = float(scores[self.score])
        self.validations.append({"step": step, **{k: float(v) for k, v in scores.items()}})
        # A NaN is never the best: comparisons with it are false.
        if value > (best if best is not None else -float("inf")):
            self.best_step, self.best_state = step, snapshot(method.state_dict())

    def measure_memory(self) -> None:
        """Raise the two peaks to what this process has reached."""
        self.peak_memory_mb = max(self.peak_memory_mb, peak_memory_mb())
        if (gpu := peak_gpu_memory_mb()) is not None:
            self.peak_gpu_memory_mb = max(self.peak_gpu_memory_mb or 0.0, gpu)

    def frame(self) -> pd.DataFrame:
        """One row a step; validation scores as columns "val_..." (NaN where none was made)."""
        steps = pd.DataFrame(self.steps, columns=None if self.steps else ["step"])
        validations = pd.DataFrame(self.validations or [{"step": 0}])
        scores = validations.rename(columns=lambda c: c if c == "step" else f"val_{c}")
        return steps.merge(scores, on="step", how="left").set_index("step")


def snapshot(state: Any) -> Any:
    """A copy of a state dict on the CPU that later steps do not change."""
    return apply_to_collection(state, Tensor, lambda tensor: tensor.detach().cpu().clone())
