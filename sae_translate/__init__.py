"""Read the latents of sparse autoencoders by unsupervised translation.

Five lines do the main job:

    import sae_translate
    cache = sae_translate.record("cache", sae="path/to/sae", dataset="texts.jsonl", tokens=500_000)
    labels = sae_translate.label_latents(cache)
    labels.save("labels")
    sae_translate.write_report(labels, "report.html")
"""

import importlib

__version__ = "0.1.0"

PUBLIC = {
    "record": "sae_translate.label.recorded",
    "label_latents": "sae_translate.label.latents",
    "LabelConfig": "sae_translate.label.latents",
    "Labels": "sae_translate.label.labels",
    "load_labels": "sae_translate.label.labels",
    "write_report": "sae_translate.report.html",
    "decipher": "sae_translate.align.decipher",
    "DecipherConfig": "sae_translate.align.decipher",
    "align_languages": "sae_translate.translate.portfolio",
    "align_contexts": "sae_translate.align.contexts",
    "ContextsConfig": "sae_translate.align.contexts",
    "align_vectors": "sae_translate.align.vectors",
    "VectorsConfig": "sae_translate.align.vectors",
    "align_together": "sae_translate.align.together",
    "align_by_anchors": "sae_translate.align.anchors",
    "match_profiles": "sae_translate.align.profiles",
    "functional_align": "sae_translate.align.functional",
    "alignable_parts": "sae_translate.align.functional",
    "VectorAligner": "sae_translate.align.estimators",
    "LanguageAligner": "sae_translate.align.estimators",
    "train": "sae_translate.translate.training",
    "TranslatorConfig": "sae_translate.translate.config",
    "load_translator": "sae_translate.translate.translator",
    "Language": "sae_translate.languages.language",
    "Corpus": "sae_translate.languages.language",
}
"Where each public name lives; looked up on first use, so that importing the package loads no torch."

__all__ = [*PUBLIC, "__version__"]


def __getattr__(name: str):
    if name in PUBLIC:
        return getattr(importlib.import_module(PUBLIC[name]), name)
    raise AttributeError(f"module 'sae_translate' has no attribute {name!r}; it has {', '.join(PUBLIC)}")
