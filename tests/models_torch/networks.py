"""Small networks, whose source TorchScript can read."""

from __future__ import annotations

from typing import Any

import torch


class Small(torch.nn.Module):
    """A convolution, a batch normalisation that differs in training, a mean over the picture."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(channels, features, 3)
        self.normalisation = torch.nn.BatchNorm2d(features)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.dropout(self.normalisation(self.convolution(x)))
        return torch.relu(found).mean((2, 3))


class Flat(torch.nn.Module):
    """Every pixel as it came."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


class Deep(torch.nn.Module):
    """(b, d, 1, 1)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3), keepdim=True).to(torch.bfloat16)


class Pair(torch.nn.Module):
    """Two answers."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.flatten(1), x


def script(module: Any, path: Any) -> str:
    torch.jit.script(module).save(str(path))
    return f"torch:{path}"


def export(module: Any, path: Any, example: Any, dynamic: bool = True) -> str:
    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
    program = torch.export.export(module.eval(), (example,), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return f"torch:{path}"
