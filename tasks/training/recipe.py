"""Settings that every trained network shares: sections inside a room's own section of params.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tasks.domain.errors import Differs, WrongUse
from tasks.domain.params import Section
from tasks.store.digests import sha256_file


class Recipe(Section):
    """How one network is fitted."""

    epochs: int
    """Passes over the training hip-visits from a cold start."""
    batch: int
    """Items of one optimizer step, over all processes."""
    microbatch: int
    """Items of one forward pass, gradients accumulated to `batch`; 0: the whole batch. Halved when memory runs out."""
    lr: float
    """Peak learning rate of AdamW."""
    weight_decay: float
    """Not applied to biases and normalization."""
    warmup: float
    """Share of all steps over which the rate rises linearly; it then falls by a cosine to zero."""
    clip: float
    """Largest norm of the gradient; 0: any."""
    ema: float
    """Decay per step of the averaged weights that are kept in the end; 0: the last weights are kept."""
    settle: int
    """Batches over which BatchNorm's statistics are taken anew for the weights that are kept; 0: as they ran."""
    precision: Literal["auto", "fp32", "bf16"]
    """auto: bfloat16 autocast on a GPU, float32 on CPU (where bfloat16 trains slower)."""
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"]
    """torch.compile mode; on a GPU reduce-overhead and max-autotune use CUDA graphs. A CPU needs a C++ compiler."""
    deterministic: bool
    """Only algorithms that give the same bits each time."""
    validation_share: float
    """Share of training patients held back for early stopping; 0: none, all epochs are run."""
    patience: int
    """Epochs without a better validation loss after which training stops; 0: never."""
    checkpoint_steps: int
    """Steps between checkpoints, from which a killed run goes on; 0: none."""
    seed: int


class Augment(Section):
    """Random change of each training image, drawn anew each time, on the device. There is no flip: it would swap
    medial and lateral."""

    rotate_deg: float
    """Largest rotation either way."""
    scale: float
    """Largest relative change of size."""
    shift: float
    """Largest shift along each axis, as a share of the image."""
    gain: float
    """Largest relative change of intensity of each channel."""
    gamma: float
    """Largest change of the exponent of intensity."""
    noise: float
    """Standard deviation of added noise, in normalized intensity."""
    drop_channel: float
    """Chance that a channel is left out, so that a hip without that sequence can be read; one always stays."""


class Pretrained(Section):
    """Weights to start from, in place of random ones."""

    file: str
    """A safetensors file with the state of the whole torchvision network."""
    sha256: str
    """Its digest; other bytes are refused."""

    def checked(self) -> Path:
        """The file, once its digest is the one that params.yaml names."""
        path = Path(self.file)
        if not path.exists():
            raise WrongUse(f"{path} is not there; params.yaml names it as pretrained weights")
        if sha256_file(path) != self.sha256:
            raise Differs(f"{path} does not have the digest that params.yaml names")
        return path
