"""What labelling may be told."""

from dataclasses import dataclass, field

from sae_translate.align.decipher import DecipherConfig


@dataclass(frozen=True)
class LabelConfig:
    """What `label_latents` may be told; every default suits a first run."""

    vocabulary: int = 2000
    "Text items (most frequent first) that unpaired labels are made of."
    text_unit: str = "auto"
    "What the text's items are: token (of the model's tokenizer), word, or auto."
    text_tokens: int = 1_000_000
    "How many words of a given text are read, about."
    min_confidence: float = 0.3
    "Below this confidence an unpaired label abstains."
    n_top: int = 8
    "Strongest contexts per latent kept for the report."
    n_quantile: int = 2
    "Contexts per quantile of activation kept for the report."
    before: int = 14
    "Tokens shown before the peak of a context."
    after: int = 6
    "Tokens shown after it."
    decipherment: DecipherConfig = field(default_factory=DecipherConfig)
    "Knobs of the unpaired method."
    seed: int = 0
    "Seed of the splits, the decipherment, the random floor and the intervals."
