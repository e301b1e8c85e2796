"""What a report says in words: names of methods, predicates as sentences, the verdict, the meaning of numbers."""

from collections.abc import Iterable
from dataclasses import dataclass

from sae_translate.label.predicates import IN_WORDS


@dataclass(frozen=True)
class MethodWords:
    """How a labelling method is called, coloured and explained in a report."""

    title: str
    role: str
    "`answer` for a method a user would believe, `floor` for a baseline that it has to beat."
    colour: str
    "Reads on light and on dark paper."
    note: str


METHODS = {
    "unpaired": MethodWords(
        "Unpaired",
        "answer",
        "#5470e8",
        "Decipherment: the statistics of the latents and the statistics of text from other documents, never aligned.",
    ),
    "paired": MethodWords(
        "Paired",
        "answer",
        "#14a08f",
        "Token and n-gram statistics of the latent's own contexts: the ceiling for what statistics can know.",
    ),
    "logit_lens": MethodWords(
        "Logit lens",
        "answer",
        "#d98324",
        "The tokens that the latent's decoder direction promotes through the unembedding.",
    ),
    "random": MethodWords("Random label", "floor", "#8b939e", "The label of a latent drawn at random: a floor."),
    "frequent": MethodWords("Most frequent", "floor", "#b0a08c", "The most frequent token of the text: a floor."),
}

KINDS = {
    "token": "token",
    "previous_token": "after token",
    "next_token": "before token",
    "ngram": "n-gram",
    "word": "word",
}
"Short names of label kinds; another kind is called by its key."

NUMBERS = {
    "f1": ("F1", "Harmonic mean of precision and recall on documents that no labeller saw."),
    "precision": ("Precision", "Where the label says the latent fires: the share of positions where it does."),
    "recall": ("Recall", "Where the latent fires: the share of positions where the label says so."),
    "balanced_accuracy": (
        "Balanced acc.",
        "Mean of the share of firing and of silent positions that the label gets right; 0.5 is chance.",
    ),
    "confidence": (
        "Confidence",
        "Estimated chance that the label's first term is right, made without the documents that score it.",
    ),
    "density": ("Density", "Share of positions on which the latent is active."),
}


def method_words(method: str) -> MethodWords:
    """Title, role, colour and note of a method; a plain entry for one that has none yet."""
    known = METHODS.get(method)
    return known or MethodWords(method.replace("_", " ").capitalize(), "answer", "#a463f2", "")


def methods_in_order(methods: Iterable[str]) -> list[str]:
    """Each method once, in the order of METHODS; answers that it does not know yet stand before the floors."""
    known, present = list(METHODS), list(dict.fromkeys(map(str, methods)))
    place = {method: known.index(method) if method in known else len(known) for method in present}
    return sorted(present, key=lambda method: (method_words(method).role == "floor", place[method]))


def visible(token: str) -> str:
    """The token with white space that would not be seen spelt out: a line break is ↵, a tab ⇥, a lone space ␣."""
    shown = token.replace("\r", "").replace("\n", "↵").replace("\t", "⇥")
    return shown if shown.strip(" ") else "␣" * len(shown)


def predicate_in_words(predicate: dict, label: str, most: int = 12) -> str:
    """The claim that a predicate makes, as a sentence.

    The predicate names what it looks at under `names` or `words` or, where it only knows token ids, under `any`; then
    the label stands for them, and their number is told.
    """
    kind = str(predicate.get("kind", ""))
    if not kind:
        return ""
    phrase = IN_WORDS.get(kind, f"{kind.replace('_', ' ')}:")
    names, ids = predicate.get("names") or predicate.get("words") or [], predicate.get("any") or []
    if names:
        claim = listed([visible(str(name)) for name in names], most)
    else:
        bare = visible(label.removeprefix(phrase.split(" ")[-1] + " "))
        claim = f"“{bare}”" + (f" and more, {len(ids)} in all" if len(ids) > 1 else "")
    return f"{phrase[0].upper()}{phrase[1:]} {claim}"


def listed(words: list[str], most: int) -> str:
    """The words in quotation marks as a list with `or`; beyond `most` only their number is told."""
    quoted = [f"“{word}”" for word in words[:most]]
    if len(words) > most:
        return f"{', '.join(quoted)} or {len(words) - most} more"
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def short_name(name: str) -> str:
    """A model, SAE or dataset as a reader calls it: the last part of a path; a hub name stays as it is."""
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    local = name.startswith(("/", ".", "~")) or "\\" in name or ":" in name[:2]
    return parts[-1] if local and parts else name


def text_in_words(decipherment: dict) -> str:
    """How much weaker a given text is than the dataset's own documents; empty where none was given."""
    own = decipherment.get("own_text_objective")
    if not own or own <= 0:
        return ""
    share = max(decipherment["objective"], 0) / own
    return f"The dataset's own documents explain {own:.1%} there, so this text carries {share:.0%} of what they do."


def verdict_in_words(decipherment: dict | None) -> str:
    """One sentence on whether the decipherment is to be believed."""
    if not decipherment or decipherment.get("objective") is None:
        return "No decipherment was run, so there is no unpaired answer to believe or doubt."
    if decipherment.get("reason"):
        return " ".join(filter(None, [str(decipherment["reason"]), text_in_words(decipherment)]))
    if decipherment.get("believed") is None:
        return "The decipherment was not tried against a null, so nothing tells chance from structure here."
    beats = "beats its null" if decipherment["believed"] else "does not beat its null: the unpaired method abstains"
    return f"The objective {beats}."
