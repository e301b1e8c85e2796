"""Stories: laws of the generator, in both languages."""

from collections import Counter
from functools import cache

import pytest

from activation_cache.errors import UserError
from sae_translate.demo.german import ARTICLES, decline, inflect
from sae_translate.demo.lexicon import NOUNS
from sae_translate.demo.stories import concepts_of, generate, generate_documents, translations
from sae_translate.demo.world import ANIMALS_OF, OBJECTS_OF, OUTDOORS

KINDS = {
    "entity", "place", "action", "attribute", "feeling", "name", "number", "time", "manner", "function", "punct"
}  # fmt: skip


@cache
def told(language: str, n: int, seed: int = 0):
    return list(generate(language, n, seed))


def content(story) -> Counter:
    return Counter(t.concept for t in story.tokens if t.concept.split(":")[0] not in ("function", "punct"))


def test_one_plot_says_the_same_things_in_both_languages():
    for english, german in zip(told("en", 300), told("de", 300), strict=True):
        assert english.plot == german.plot
        assert content(english) == content(german), english.text + "\n" + german.text


def test_every_token_has_a_concept_of_a_known_kind():
    for language in ("en", "de"):
        for story in told(language, 300):
            for token in story.tokens:
                kind, _, name = token.concept.partition(":")
                assert kind in KINDS and name


def test_spans_cut_the_text_into_its_tokens():
    for story in told("de", 300):
        assert [story.text[start:end] for start, end in story.spans] == [token.text for token in story.tokens]


def test_stories_are_all_different():
    texts = {story.text for story in told("en", 300)} | set(generate_documents("en", 300, seed=1))
    assert len(texts) == 600


def test_the_same_seed_tells_the_same_stories_and_another_seed_tells_others():
    assert list(generate_documents("de", 20, seed=7)) == list(generate_documents("de", 20, seed=7))
    assert not set(generate_documents("en", 100, seed=7)) & set(generate_documents("en", 100, seed=8))


def test_stories_without_a_number_do_not_end():
    stories = generate("en", None)
    assert len([next(stories) for _ in range(50)]) == 50


def test_an_unknown_language_names_the_known_ones():
    with pytest.raises(UserError, match="en, de"):
        generate("fr", 1)


def test_there_are_hundreds_of_concepts_and_their_frequencies_fall_steeply():
    counts = Counter(t.concept for story in told("en", 300) for t in story.tokens)
    assert 250 <= len(counts) <= 500
    content = [count for concept, count in counts.most_common() if concept.split(":")[0] not in ("function", "punct")]
    assert content[0] > 8 * content[200] > 0


def test_animals_do_what_their_kind_does():
    barking, owners = {"barked", "barks"}, Counter()
    for story in told("en", 300):
        for before, token in zip(story.tokens, story.tokens[1:], strict=False):
            if token.text in barking and before.concept.startswith("entity:"):
                owners[before.concept] += 1
    assert set(owners) == {"entity:dog"}


def test_german_articles_agree_with_the_gender_of_their_noun():
    by_form = {}
    for key, noun in NOUNS.items():
        by_form.setdefault((noun.concept, decline(key, "nom", False)), set()).update(ARTICLES[noun.gender])
        by_form.setdefault((noun.concept, decline(key, "acc", False)), set()).update(ARTICLES[noun.gender][1:])
        for case in ("nom", "dat"):
            by_form.setdefault((noun.concept, decline(key, case, True)), set()).update(ARTICLES["p"])
    seen = 0
    for story in told("de", 300):
        for article, noun in zip(story.tokens, story.tokens[1:], strict=False):
            form = (noun.concept, noun.text)
            if article.concept == "function:the" and form in by_form:
                assert article.text.lower() in by_form[form], f"{article.text} {noun.text}"
                seen += 1
    assert seen > 400


@pytest.mark.parametrize(
    ("key", "case", "plural", "form"),
    [
        ("rabbit", "acc", False, "Hasen"), ("bear", "dat", False, "Bären"), ("farmer", "acc", False, "Bauern"),
        ("neighbor", "dat", False, "Nachbarn"), ("elephant", "acc", False, "Elefanten"), ("bear", "nom", False, "Bär"),
        ("child", "dat", True, "Kindern"), ("boy", "dat", True, "Jungen"), ("car", "dat", True, "Autos"),
        ("apple", "dat", True, "Äpfeln"), ("cat", "dat", False, "Katze"),
    ],
)  # fmt: skip
def test_german_nouns_take_the_endings_of_their_class(key, case, plural, form):
    assert decline(key, case, plural) == form


def test_german_adjectives_drop_the_e_that_they_cannot_keep():
    assert inflect("dunkel", "en") == "dunklen"
    assert inflect("weise", "er") == "weiser"
    assert inflect("müde", "e") == "müde"


def test_the_german_verb_stands_second_when_an_adverb_opens_the_sentence():
    verbs = ("action:", "function:be", "function:have", "function:can")
    seen = 0
    for story in told("de", 300):
        opens = True
        for token, after in zip(story.tokens, story.tokens[1:], strict=False):
            if opens and token.concept in ("time:then", "time:suddenly", "time:later", "time:finally", "time:now"):
                assert after.concept.startswith(verbs), story.text
                seen += 1
            opens = token.text in (".", "“")
    assert seen > 100


def test_every_content_word_has_its_known_translation():
    table = translations(n=250)
    assert table["cat"][0] == "katze" and table["red"][0].startswith("rot") and table["forest"] == ("wald",)
    assert {"lief", "läuft", "laufen"} <= set(table["ran"])
    missing = [
        word
        for word, concepts in concepts_of("en", n=250).items()
        if concepts[0].split(":")[0] not in ("function", "punct") and not table[word]
    ]
    assert missing == []


def test_every_outdoor_place_has_something_to_meet_and_to_find():
    assert set(OUTDOORS) <= set(ANIMALS_OF) & set(OBJECTS_OF)
