"""Ways to align two languages, tried in turn: each rests on something else that they may have in common."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from activation_cache.errors import UserError, choose
from sae_translate.align.alignment import Alignment
from sae_translate.align.contexts import ContextsConfig, align_contexts
from sae_translate.align.decipher import DecipherConfig
from sae_translate.align.matching import MatchConfig
from sae_translate.align.profiles import ProfilesConfig, match_profiles
from sae_translate.languages.language import Language
from sae_translate.translate.dictionary import decipher_and_read

Progress = Callable[[str, int, int], None]
GLANCE = 1000
"So many of the heaviest items are matched one to one first, and more where these are believed."


def _by_contexts(source: Language, target: Language, seed: int, device: str, progress: Progress | None) -> Alignment:
    return align_contexts(source, target, ContextsConfig(seed=seed, device=device), progress)


def _by_profiles(source: Language, target: Language, seed: int, device: str, progress: Progress | None) -> Alignment:
    whole = ProfilesConfig(match=MatchConfig(seed=seed), device=device)
    for done, size in enumerate((GLANCE, whole.max_items)):
        if progress is not None:
            progress("match", done, 2)
        found = match_profiles(source, target, replace(whole, max_items=size))
        if not is_believed(found) or size >= max(len(source.items), len(target.items)):
            break
    return found


def _by_decipherment(
    source: Language, target: Language, seed: int, device: str, progress: Progress | None
) -> Alignment:
    return decipher_and_read(source, target, DecipherConfig(seed=seed, device=device), progress).alignment


WAYS: dict[str, Callable[[Language, Language, int, str, Progress | None], Alignment]] = {
    "contexts": _by_contexts,
    "profiles": _by_profiles,
    "decipher": _by_decipherment,
}
"""By the contexts that items prefer (two natural languages), by matching one to one what stands next to what (ciphers,
chains), and by decipherment of lagged co-occurrence (latents, and items that stand for several)."""
OF_WORDS, OF_LATENTS = ("contexts", "profiles"), ("decipher",)
"""Ways that suit two texts, cheapest first, and those that suit latents: between two natural languages decipherment
finds little and its verdict is easily won (reports/portfolio.md)."""


def align_languages(
    source: Language,
    target: Language,
    ways: Sequence[str] = OF_WORDS,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Alignment:
    """The first of these ways that is believed; where none is, what came nearest to it.

    Every way has surrogates and a threshold of its own; the record's `tried` says how each fared. `progress` is called
    with the stage, the steps done and the most there can be. Raises `UserError` for an unknown way, or where each
    finds too little text.
    """
    tried: list[Alignment] = []
    refusal: UserError | None = None
    for align in [choose(WAYS, way, "method") for way in ways]:
        try:
            tried.append(align(source, target, seed, device, progress))
        except UserError as error:
            refusal = refusal or error
            continue
        if is_believed(tried[-1]):
            break
    if not tried:
        raise refusal or UserError("no method of alignment was given: give one or more")
    found = tried[-1] if is_believed(tried[-1]) else max(tried, key=margin_of)
    told = ("objective", "threshold", "believed", "reason")
    fared = [{"method": one.record["method"], **{name: getattr(one.verdict, name) for name in told}} for one in tried]
    return replace(found, record={**found.record, "tried": fared})


def is_believed(alignment: Alignment) -> bool:
    """Whether its verdict, which every way gives, says so."""
    assert alignment.verdict is not None
    return alignment.verdict.believed


def margin_of(alignment: Alignment) -> float:
    """By how much of its threshold its objective passes that, or falls short."""
    assert alignment.verdict is not None
    objective, threshold = alignment.verdict.objective, alignment.verdict.threshold
    return (objective - threshold) / max(threshold, 1e-9)
