"""How far a step is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepStatus:
    """How far a step is.

    Attributes
    ----------
    step
        Its section in the config.
    output
        Name of the folder of the output ("data", "partial_data_ncells_50_seed_42").
    state
        ``absent``, ``interrupted``, ``complete`` or ``stale``.
    done, units
        Units finished and in all, of an interrupted run.
    changes
        What differs from the settings and inputs of now, where it is stale.
    """

    step: str
    output: str
    state: str
    done: int = 0
    units: int = 0
    changes: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = f"{self.step} ({self.output}): {self.state}"
        if self.state == "interrupted":
            what += (
                f", {self.done} of {self.units} units" if self.units else ", before its first unit"
            )
        return "\n    changed: ".join([what, *self.changes])
