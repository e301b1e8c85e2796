"""Knobs of the translation core."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Schedule:
    """A loss's weight over the steps of training: a straight line between two points, level before and after them."""

    first: float = 0.0
    "Weight until step `begin`."
    last: float = 0.0
    "Weight from step `end` on."
    begin: int = 0
    end: int = 0

    def __call__(self, step: int) -> float:
        if step >= self.end:
            return self.last
        if step <= self.begin:
            return self.first
        return self.first + (self.last - self.first) * (step - self.begin) / (self.end - self.begin)

    @property
    def is_used(self) -> bool:
        return self.first != 0 or self.last != 0


def constant(weight: float) -> Schedule:
    """The same weight at every step."""
    return Schedule(weight, weight)


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses; a loss of weight 0 at every step costs nothing."""

    pseudo_parallel: Schedule = Schedule(1.0, 0.0, 500, 1500)
    "Real text from its translation by the alignment's dictionary; nothing with a random start."
    denoise: Schedule = field(default_factory=lambda: constant(1.0))
    "Text from its own corrupted copy."
    back_translation: Schedule = Schedule(0.0, 1.0, 300, 800)
    "Real text from the translation of it that the network makes as it stands."
    adversarial: Schedule = Schedule()
    "Critic that tells the languages apart by the latent; the encoder must fool it."
    bottleneck: Schedule = Schedule()
    "Kullback-Leibler divergence of a variational latent from the standard normal."
    moments: Schedule = Schedule()
    "Squared distance between the two languages' means and covariances of the latent."
    prior: Schedule = Schedule()
    "Cross entropy of translations under a frozen language model of the target (bigrams, soft outputs)."


@dataclass(frozen=True)
class NoiseConfig:
    """How a text is corrupted before it is to be restored."""

    drop: float = 0.1
    "Chance that a position is left out; where output stands at the positions of the input, it is blanked instead."
    blank: float = 0.1
    "Chance that a position is replaced by a blank."
    shuffle: float = 3.0
    "How far positions may move: order of i + uniform(0, shuffle). Not done where output stands at the input."


@dataclass(frozen=True)
class BackboneConfig:
    """The network between the adapters of the two languages."""

    name: str = "xtransformers"
    "feedforward, tagger, xtransformers, encoder_decoder or decoder_only."
    d_model: int = 128
    "Width; with `model` it is the model's."
    depth: int = 2
    "Layers of the encoder, and of the decoder."
    heads: int = 4
    dropout: float = 0.1
    model: str | None = None
    "Hub name or folder of a pretrained model, for encoder_decoder (T5) and decoder_only (any causal model)."
    lora_rank: int = 0
    "Rank of low-rank adapters on a pretrained model, whose own weights stay frozen; 0 trains all weights."


@dataclass(frozen=True)
class TrainingConfig:
    """How a translator is trained."""

    steps: int = 3000
    batch_size: int = 32
    "Segments of each language in a batch."
    accumulate: int = 1
    "Batches whose gradients are added up before a step."
    max_length: int = 40
    "Longer segments are left out of training, and translations end here at the latest."
    lr: float = 1e-3
    "Highest learning rate; it rises over `warmup` steps and then falls as the inverse square root of the step."
    warmup: int = 200
    cooldown: int = 0
    "Steps at the end over which it is brought down to 0 besides, in a straight line."
    clip: float = 1.0
    "Largest norm of the gradient."
    label_smoothing: float = 0.0
    critic_smoothing: float = 0.1
    "The critic is trained towards 1 minus this."
    free_bits: float = 0.5
    "Divergence (nats a dimension and position) below which the bottleneck costs nothing."
    precision: str = "float32"
    "float32 or bfloat16 (autocast)."
    evaluate_every: int = 250
    "Steps between two looks at the criterion."
    patience: int = 5
    "Looks without a better criterion after which training ends."
    held_out: int = 100
    "Segments of each language kept out of training for the criterion."
    budget: float = 0.0
    "Seconds of wall clock after which training ends; 0 sets no limit."
    seed: int = 0
    device: str = "cpu"

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rest = min(1.0, (self.steps - step) / self.cooldown) if self.cooldown else 1.0
        return self.lr * rest * min((step + 1) / self.warmup, (self.warmup / (step + 1)) ** 0.5)


@dataclass(frozen=True)
class TranslatorConfig:
    """A translator and how it is made."""

    start: str = "alignment"
    "alignment: embeddings mapped by the dictionary, pseudo-parallel text. random: neither, for comparison."
    backbone: BackboneConfig = BackboneConfig()
    losses: LossConfig = LossConfig()
    noise: NoiseConfig = NoiseConfig()
    training: TrainingConfig = TrainingConfig()
    lm_order: int = 3
    "Order of the n-gram language models that help the dictionary make pseudo-parallel text."
    lm_weight: float = 0.5
    "What a language model's log P(item | before) - log P(item) counts beside the dictionary's log P(item | source)."
    drawn: bool = True
    "Whether pseudo-parallel text is drawn from what dictionary and language model think likely, or is the likeliest."
    refinements: int = 4
    "Rounds in which the dictionary is counted anew from its own translations, read by the language models."
