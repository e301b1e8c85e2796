"""The report: figures tell the table's truth, the page opens offline, and a browser can search, sort and choose."""

import base64
import copy
import json
import re
import zlib

import numpy as np
import pandas as pd
import pytest
from browser import chromium, console_errors, network_requests, wait_until
from synthetic_labels import synthetic_labels

from activation_cache.errors import UserError
from sae_translate.cli import report as report_command
from sae_translate.label.labels import Labels
from sae_translate.report import figures, html
from sae_translate.report.words import listed, predicate_in_words, short_name, verdict_in_words, visible

EVIL = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"


def unpacked(page: str, name: str):
    """A data part of a page, as the page itself reads it."""
    text = re.search(rf'id="data-{name}">([^<]*)<', page).group(1)
    return json.loads(zlib.decompress(base64.b64decode(text)))


# ---- figures


def test_every_latent_stands_once_on_the_map_under_each_colouring():
    labels = synthetic_labels(120)
    chosen = labels.chosen()[["latent", "label", "kind", "f1", "abstained"]]
    points = labels.latents[["latent", "x", "y"]].merge(chosen)
    for colour in ("label", "kind", "f1"):
        drawn = [latent for trace in figures.map_figure(points, colour).data for latent in trace.customdata]
        assert sorted(drawn) == sorted(labels.latents["latent"])


def test_the_map_gives_its_colours_to_the_most_frequent_labels():
    points = pd.DataFrame({"latent": range(10), "x": 0.0, "y": 0.0, "kind": "token", "f1": 0.5, "abstained": False})
    points["label"] = ["cat"] * 5 + ["dog"] * 3 + ["sun", "sky"]
    names = {trace.name: len(trace.x) for trace in figures.map_figure(points, "label", groups=2).data}
    assert names == {"other": 2, "cat": 5, "dog": 3}


def test_an_abstention_counts_as_zero_in_the_curve_of_f1():
    table = pd.DataFrame(
        {"method": ["paired"] * 4, "f1": [1.0, 0.5, 0.9, np.nan], "abstained": [False, False, True, False]}
    )
    curve = figures.f1_curve_figure(table).data[0]
    assert (curve.y[0], curve.y[50], curve.y[51], curve.y[100]) == (1.0, 0.5, 0.25, 0.25)


def test_the_histogram_keeps_every_count_and_grows_its_axis_where_the_bins_do():
    counts = np.array([0.0, 3, 0, 2, 0])
    even = figures.histogram_figure(counts, np.arange(6.0))
    growing = figures.histogram_figure(counts, 2.0 ** np.arange(6))
    assert even.data[0].y == growing.data[0].y == (0, 3, 0, 2, 0)
    assert (even.layout.xaxis.type, tuple(even.layout.xaxis.range)) == (None, (0, 4))
    assert (growing.layout.xaxis.type, tuple(growing.layout.xaxis.range)) == ("log", (np.log10(2), np.log10(16)))


def test_the_figure_of_methods_shows_every_interval_about_its_mean():
    methods = pd.DataFrame(synthetic_labels(40).summary["methods"])
    for trace in figures.methods_figure(methods).data:
        row = methods[np.isclose(methods["f1"], trace.x[0])].iloc[0]
        assert np.isclose(trace.x[0] + trace.error_x.array[0], row["f1_high"])
        assert np.isclose(trace.x[0] - trace.error_x.arrayminus[0], row["f1_low"])


def test_the_null_figure_holds_the_objective_the_surrogates_and_the_threshold():
    figure = figures.null_figure(0.13, (0.01, 0.02), 0.03)
    assert (figure.data[0].x, figure.data[1].x, figure.layout.shapes[0].x0) == ((0.01, 0.02), (0.13,), 0.03)


# ---- words


def test_a_predicate_reads_as_a_sentence():
    assert predicate_in_words({"kind": "token", "any": [[3]]}, "cat") == "Fires on “cat”"
    assert predicate_in_words({"kind": "token", "any": [[3], [4]]}, "cat") == "Fires on “cat” and more, 2 in all"
    assert predicate_in_words({"kind": "next_token", "any": [[3]]}, "before cat") == "Fires before “cat”"
    assert predicate_in_words({"kind": "previous_token", "names": [" of", "\n"]}, "of") == "Fires after “ of” or “↵”"
    assert predicate_in_words({"kind": "rhyme", "any": [[1]]}, "cat") == "Rhyme: “cat”"
    assert predicate_in_words({}, "cat") == ""


def test_a_long_list_tells_how_many_more_there_are():
    assert listed(list("abcde"), 3) == "“a”, “b”, “c” or 2 more"


def test_only_local_paths_are_cut_to_their_last_part():
    names = ("/data/models/tiny", "./sae/", "EleutherAI/pythia-70m", "release/blocks.3.hook_resid_post", "stories:en")
    assert [short_name(name) for name in names] == ["tiny", "sae", *names[2:]]


def test_a_decipherment_without_a_null_is_neither_believed_nor_doubted():
    assert "not tried against a null" in verdict_in_words({"objective": 0.6})
    assert "does not beat" in verdict_in_words({"objective": 0.6, "believed": False})
    assert "No decipherment" in verdict_in_words(None)


def test_white_space_is_spelt_out_only_where_it_would_not_be_seen():
    assert [visible(token) for token in (" cat", "  ", "\n", "a\tb")] == [" cat", "␣␣", "↵", "a⇥b"]


# ---- the file


def test_a_thousand_latents_take_at_most_ten_megabytes():
    labels = synthetic_labels(1000)
    assert len(html.render(labels.table, labels.latents, labels.summary).encode()) <= 10_000_000


def test_contexts_are_left_out_where_they_would_exceed_the_budget(monkeypatch):
    labels = synthetic_labels(40, contexts=30, length=90)
    whole = html.render(labels.table, labels.latents, labels.summary)
    assert unpacked(whole, "core")["contexts_per_kind"] is None
    budget = len(whole.encode()) - 60_000
    monkeypatch.setattr(html, "BYTES_PER_THOUSAND", budget)
    page = html.render(labels.table, labels.latents, labels.summary)
    kept = unpacked(page, "core")["contexts_per_kind"]
    assert len(page.encode()) <= budget
    assert max(sum(c[0] == "top" for c in detail["contexts"]) for detail in unpacked(page, "block-0")) == kept < 15


def test_writing_a_report_changes_nothing_in_the_labels_and_gives_the_same_bytes_again(tmp_path):
    labels = synthetic_labels(20)
    before = copy.deepcopy(labels)
    first, _ = html.write_report(labels, tmp_path / "first.html")
    second, _ = html.write_report(labels, tmp_path / "second.html")
    assert first.read_bytes() == second.read_bytes()
    pd.testing.assert_frame_equal(labels.table, before.table)
    pd.testing.assert_frame_equal(labels.latents, before.latents)
    assert labels.summary == before.summary


def test_contexts_come_back_from_the_page_as_they_went_in(tmp_path):
    labels = synthetic_labels(70)
    page = html.render(labels.table, labels.latents, labels.summary)
    strings, last = unpacked(page, "core")["strings"], unpacked(page, "block-1")[-1]
    for given, (kind, document, position, peak, tokens, active) in zip(
        labels.latents["contexts"].iloc[-1], last["contexts"], strict=True
    ):
        assert [strings[token] for token in tokens] == given["tokens"]
        values = np.zeros(len(tokens))
        values[active[::2]] = active[1::2]
        assert np.allclose(values, given["values"], rtol=1e-3)
        assert (kind, document, position, peak) == tuple(given[key] for key in ("kind", "document", "position", "peak"))


def test_the_page_names_no_address_and_allows_no_connection():
    labels = synthetic_labels(3)
    page = html.render(labels.table, labels.latents, labels.summary)
    outside = re.sub(r"<script type=.application/octet-stream.*?</script>", "", page, flags=re.S)
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:|//)|@import|url\(""", outside)
    assert "default-src 'none'" in outside and "connect-src" not in outside


def test_scores_that_are_not_numbers_become_null():
    labels = synthetic_labels(4)
    table = labels.table.assign(f1=np.nan)
    summary = labels.summary | {"decipherment": labels.summary["decipherment"] | {"objective": float("nan")}}
    core = unpacked(html.render(table, labels.latents, summary), "core")
    assert core["answers"]["paired"]["f1"] == [None] * 4
    assert core["summary"]["decipherment"]["objective"] is None


def test_labels_of_latents_that_the_latents_table_lacks_are_an_error():
    labels = synthetic_labels(5)
    with pytest.raises(UserError, match=r"1 latents .first: 13. that the table of latents lacks"):
        html.render(labels.table, labels.latents.iloc[:-1], labels.summary)
    with pytest.raises(UserError, match="no latent"):
        html.render(labels.table.iloc[:0], labels.latents.iloc[:0], labels.summary)


# ---- the command


def test_the_command_writes_page_and_summary_beside_the_labels_and_never_replaces_them_unasked(tmp_path, capsys):
    folder = synthetic_labels(5).save(tmp_path / "labels")
    report_command.run(folder)
    page = folder / "report.html"
    assert str(page) in capsys.readouterr().out
    assert json.loads((folder / "report.json").read_text())["model"] == "stories-8k"
    written = page.read_bytes()
    with pytest.raises(UserError, match=r"report.html exists: give another --out, or --overwrite"):
        report_command.run(folder)
    report_command.run(folder, overwrite=True)
    assert page.read_bytes() == written


def test_a_folder_without_labels_gives_one_line_and_no_file(tmp_path):
    with pytest.raises(UserError, match="not a labels folder"):
        report_command.run(tmp_path, out=tmp_path / "new" / "report.html")
    with pytest.raises(UserError, match=r"does not end in \.html"):
        report_command.run(tmp_path, out=tmp_path / "report.txt")
    assert list(tmp_path.iterdir()) == []


# ---- in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def labels() -> Labels:
    return synthetic_labels(300)


@pytest.fixture(scope="module")
def page(labels, tmp_path_factory) -> str:
    return html.write_report(labels, tmp_path_factory.mktemp("report") / "report.html")[0].as_uri()


def opened(driver, address: str) -> None:
    """Open the page afresh and wait until its figures stand."""
    driver.get("about:blank")
    console_errors(driver), network_requests(driver)
    driver.get(address)
    wait_until(driver, "document.documentElement.dataset.ready === 'figures'")


def shown_latents(driver) -> list[int]:
    return driver.execute_script(
        "return [...document.querySelectorAll('#rows .row .latent')].map(cell => Number(cell.textContent))"
    )


def search(driver, text: str) -> None:
    box = driver.find_element("id", "search")
    box.clear()
    box.send_keys(text)


def read_latent(driver, latent: int) -> None:
    wait_until(driver, f"document.getElementById('latent').dataset.latent === '{latent}'")


def test_the_report_opens_without_errors_or_requests(browser, page):
    opened(browser, page)
    browser.find_element("id", "tab-summary").click()
    wait_until(browser, "document.querySelectorAll('[data-figure] .main-svg').length >= 3")
    assert "Unpaired" in browser.find_element("css selector", "#view-summary table").text
    assert console_errors(browser) == []
    assert network_requests(browser) == []


def test_searching_leaves_the_latents_whose_label_or_terms_hold_the_word(browser, page, labels):
    opened(browser, page)
    real = labels.table[~labels.table["method"].isin(["random", "frequent"])]
    holds = [any("cat" in t for t in [row.label, *(t for t, _ in row.terms[:6])]) for row in real.itertuples()]
    expected = set(real["latent"][holds])
    search(browser, "cat")
    assert browser.find_element("id", "count").text == f"{len(expected)} of 300"
    assert set(shown_latents(browser)) <= expected
    search(browser, "f1>0.5004 density<1.5%")
    best = labels.chosen()
    n = int(((best["f1"] > 0.5004) & (best["density"] < 0.015) & ~best["abstained"]).sum())
    assert browser.find_element("id", "count").text == f"{n} of 300"
    search(browser, "nothing-is-called-so")
    assert browser.find_element("id", "nothing").is_displayed()


def test_sorting_by_a_column_and_back_orders_the_whole_table(browser, page, labels):
    opened(browser, page)
    best = labels.chosen()
    by_density = best.sort_values(["density", "latent"], ascending=[False, True])["latent"].tolist()
    head = "#head [data-key=density]"
    browser.find_element("css selector", head).click()
    first = shown_latents(browser)
    assert first == by_density[: len(first)]
    browser.find_element("css selector", head).click()
    first = shown_latents(browser)
    assert first == by_density[::-1][: len(first)]
    assert browser.find_element("css selector", head).get_attribute("aria-sort") == "ascending"


def test_choosing_a_row_shows_its_label_claim_and_contexts_and_the_keyboard_goes_on(browser, page, labels):
    opened(browser, page)
    third, fourth = shown_latents(browser)[2:4]
    browser.find_element("css selector", f"#row-{third}").click()
    read_latent(browser, third)
    best = labels.chosen().set_index("latent").loc[third]
    assert browser.find_element("css selector", "#latent h1").text == best["label"]
    claim = browser.find_element("css selector", "#latent .claim").text
    assert claim.endswith(predicate_in_words(best["predicate"], best["label"]))
    contexts = labels.latents.set_index("latent").loc[third, "contexts"]
    lines = browser.find_elements("css selector", "#latent .line")
    assert len(lines) == len(contexts)
    peak = browser.find_element("css selector", "#latent .line .peak")
    assert peak.text == contexts[0]["tokens"][contexts[0]["peak"]].strip()
    assert browser.current_url.endswith(f"#latent={third}")
    browser.find_element("id", "grid").send_keys("\ue015")  # arrow down
    read_latent(browser, fourth)


def test_an_address_with_a_latent_opens_it_and_a_click_on_the_map_chooses_another(browser, page, labels):
    wanted = int(labels.latents["latent"].iloc[-1])
    opened(browser, f"{page}#latent={wanted}")
    read_latent(browser, wanted)
    place = browser.execute_script("""
        const map = document.getElementById('map'), {xaxis, yaxis} = map._fullLayout, box = map.getBoundingClientRect();
        const spots = map.data.slice(0, -2).flatMap(trace => trace.customdata.map((latent, i) => {
          const at = (v) => (v._inputArray || v)[i];
          const x = xaxis._offset + xaxis.d2p(at(trace.x)), y = yaxis._offset + yaxis.d2p(at(trace.y));
          return {latent, x: box.left + x, y: box.top + y};
        }));
        const lonely = spots.map(a => Math.min(...spots.map(b => a === b ? 1e9 : Math.hypot(a.x - b.x, a.y - b.y))));
        return spots[lonely.indexOf(Math.max(...lonely))];""")
    from selenium.webdriver import ActionChains

    pointer = ActionChains(browser)
    pointer.w3c_actions.pointer_action.move_to_location(round(place["x"]), round(place["y"]))
    pointer.pause(0.3).click().perform()
    read_latent(browser, place["latent"])
    assert browser.find_element("css selector", ".row.on .latent").text == str(place["latent"])
    assert console_errors(browser) == []


def test_only_the_rows_in_sight_are_drawn_and_scrolling_reaches_the_last(browser, page, labels):
    opened(browser, page)
    browser.find_element("css selector", "#head [data-key=latent]").click()
    browser.execute_script("const s = document.getElementById('scroller'); s.scrollTop = s.scrollHeight")
    last = int(labels.latents["latent"].max())
    wait_until(browser, f"document.getElementById('row-{last}') !== null")
    assert len(shown_latents(browser)) < 60


def test_latents_on_which_the_unpaired_method_abstains_can_be_listed(browser, page, labels):
    opened(browser, page)
    browser.execute_script("""
        for (const [id, value] of [['method', '0'], ['answered', 'abstained']]) {
          const box = document.getElementById(id);
          box.value = value;
          box.dispatchEvent(new Event('change'));
        }""")
    n = int(labels.table.query("method == 'unpaired'")["abstained"].sum())
    assert browser.find_element("id", "count").text == f"{n} of 300"
    latent = shown_latents(browser)[0]
    browser.find_element("css selector", f"#row-{latent}").click()
    read_latent(browser, latent)
    assert "abstains" in browser.find_element("css selector", "#latent .card").text


def test_dark_paper_reaches_page_and_figures(browser, page):
    opened(browser, page)
    colours = "[getComputedStyle(document.body).backgroundColor, document.getElementById('map')._fullLayout.font.color]"
    before = browser.execute_script(f"return {colours}")
    browser.find_element("id", "theme").click()
    wait_until(browser, f"{colours}.every((colour, i) => colour !== {json.dumps(before)}[i])")
    browser.find_element("id", "theme").click()
    wait_until(browser, f"{colours}.every((colour, i) => colour === {json.dumps(before)}[i])")


def test_markup_in_labels_tokens_and_summary_stays_text(browser, tmp_path):
    labels = synthetic_labels(30)
    table = labels.table.assign(label=EVIL, terms=[[[EVIL, 1.0]]] * len(labels.table))
    contexts = [
        [context | {"tokens": [EVIL] * len(context["tokens"])} for context in given]
        for given in labels.latents["contexts"]
    ]
    summary = labels.summary | {"model": EVIL, "command": EVIL, "sae": EVIL}
    evil = Labels(table, labels.latents.assign(contexts=contexts), summary)
    path, _ = html.write_report(evil, tmp_path / "evil.html")
    opened(browser, path.as_uri())
    assert browser.find_element("css selector", "#latent h1").text == EVIL
    assert browser.find_element("css selector", "#latent .peak").text == EVIL
    browser.find_element("id", "tab-summary").click()
    assert browser.execute_script("return document.querySelectorAll('img, body script:not([type])').length") == 1
    assert "owned" not in browser.title.split("sae-translate: ")[0]
    assert console_errors(browser) == [] and network_requests(browser) == []


def test_one_latent_without_contexts_or_answers_is_a_report_too(browser, tmp_path):
    labels = synthetic_labels(1, contexts=0)
    table = labels.table.assign(abstained=True, f1=np.nan, label="", terms=[[]] * 5, predicate=[{}] * 5)
    bare = Labels(table, labels.latents.assign(histogram=[[]], histogram_edges=[[]]), {"methods": []})
    path, _ = html.write_report(bare, tmp_path / "bare.html")
    opened(browser, path.as_uri())
    assert browser.find_element("css selector", "#latent h1").text == "abstained"
    assert "No context" in browser.find_element("id", "latent").text
    assert console_errors(browser) == []
