"""The page in a browser shows the answers, works by keyboard and is easy to read."""

import pytest
import torch

from minilpo.decoding.sampling import token_probs
from minilpo.play.table import N_WORDS, Table
from tests.browser import chromium, visit  # noqa: F401  (a fixture)
from tests.play.tables import MATH, Own, serving, table_of

HOSTILE = "</title><script>window.hacked = 1</script><img src=x onerror=alert(1)>\"'&amp;\x07\u202e"


def as_percent(share):
    """Writes a share as the page does."""
    if share in (0, 1):
        return f"{share:.0%}"
    return "<0.1%" if share < 0.0005 else ">99.9%" if share >= 0.9995 else f"{share:.1%}"


@pytest.fixture(scope="module")
def server(tokenizer, tasks):
    with serving(table_of("token", tokenizer, tasks)) as server:
        yield server


@pytest.fixture
def table(server):
    return server.table


@pytest.fixture
def visited(chromium, server):  # noqa: F811
    with visit(chromium, server.address) as visited:
        settle(visited.page)
        yield visited


def settle(page):
    """Waits until both responses are there, and nothing more is asked."""
    page.locator("#head-strip .word").first.wait_for()
    page.locator("#fixed-strip .word").first.wait_for()
    page.locator("[aria-busy]").first.wait_for(state="detached")


def slide(page, name, value):
    """Moves a slider."""
    page.get_by_role("slider", name=name, exact=True).fill(str(value))
    page.wait_for_timeout(150)  # the pause after which something is asked
    page.locator("[aria-busy]").first.wait_for(state="detached")


def words_of(page, strip):
    """A strip's words without their numbers."""
    words = page.locator(f"#{strip} .word").evaluate_all("all => all.map(w => w.firstChild.data)")
    assert words
    return words


def fill_everything(page, place=3):
    """Shows all that the page can show, apart from errors; picks a word of the head's."""
    page.locator("#head-strip .word").nth(place).click()
    page.locator("[aria-busy]").first.wait_for(state="detached")
    page.get_by_role("button", name="Write twenty").click()
    page.locator("#histogram").wait_for()


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_the_page_shows_what_the_table_answers_and_asks_nobody_else(
    chromium,  # noqa: F811
    level,
    tokenizer,
    tasks,
):
    table = table_of(level, tokenizer, tasks)
    with serving(table) as server, visit(chromium, server.address) as visited:
        settle(visited.page)
        page, prompt = visited.page, visited.page.get_by_label("Or type one").input_value()
        assert prompt == table.prompts("math")["prompts"][0]
        for strip, fixed in (("fixed-strip", 1), ("head-strip", None)):
            answer = table.write(prompt, "math", fixed, 0)
            assert words_of(page, strip) == [word["text"] for word in answer["words"]]
            about = page.locator(f"#{strip.replace('strip', 'about')}").text_content()
            assert f"Reward {answer['reward']:.2f} (math)" in about
            first = page.locator(f"#{strip} .word").first
            red, green, blue = bytes.fromhex(answer["words"][0]["colour"][1:])
            shown = first.evaluate("word => getComputedStyle(word).backgroundColor")
            assert shown == f"rgb({red}, {green}, {blue})"
        # The head's bars are for the prompt, then for the word that is picked.
        before = page.locator("#head-bars .number").all_text_contents()
        assert before == [as_percent(p) for p in table.place(prompt, [], None, 1.0)["head"]]
        fill_everything(page, 5)
        after = page.locator("#head-bars .number").all_text_contents()
        written = [word["token_id"] for word in answer["words"]]
        probs = table.place(prompt, written[:5], None, 1.0)["head"]
        assert after == ([as_percent(p) for p in probs] if probs else before)
        assert (after != before) == (level == "token")
        visited.assert_quiet(server.address)
        assert len(visited.requests) > 8


def test_the_numbers_beside_the_slider_are_those_of_token_probs(visited, table):
    page, prompt = visited.page, visited.page.get_by_label("Or type one").input_value()
    page.locator("#fixed-strip .word").nth(4).click()
    written = [word["token_id"] for word in table.write(prompt, "math", 1, 0)["words"]]
    [read] = table.lm.encode([prompt])
    logits = table.lm.prefill([read + written[:4]], 1, 1).logits[0]
    order = logits.argsort(descending=True, stable=True).tolist()
    shown = order[:N_WORDS] + [k for k in written[4:5] if k not in order[:N_WORDS]]
    for temperature in (0, 0.35, 1, 2):
        slide(page, "Temperature", temperature)
        probs = token_probs(logits, torch.tensor(float(temperature)))
        numbers = page.locator("#place-bars .number").all_text_contents()
        rest = probs[[k for k in order if k not in shown]].sum().item()
        assert numbers == [as_percent(p) for p in [*probs[shown].tolist(), rest]]
        others = page.locator("#place-bars th").last.inner_text()
        assert others == f"{len(order) - len(shown)} others"
        bars = page.locator("#place-bars .bar div").evaluate_all(
            "all => all.map(b => b.style.width)"
        )
        widths = [float(width.rstrip("%")) for width in bars]
        assert widths[:-1] == pytest.approx([100 * p for p in probs[shown].tolist()], abs=0.01)


def test_twenty_responses_are_counted(chromium, tokenizer):  # noqa: F811
    table = table_of("sequence", tokenizer, [Own()])
    with serving(table) as server, visit(chromium, server.address) as visited:
        page = visited.page
        settle(page)
        slide(page, "The fixed temperature", 0.4)
        page.get_by_role("button", name="Write twenty").click()
        page.locator("#histogram").wait_for()
        [prompt, *_] = table.prompts("own")["prompts"]
        said = page.locator("#rewards-about").inner_text()
        rows = page.locator("#rewards-bars tr").all()
        for column, fixed in ((0, None), (1, 0.4)):
            rewards = table.rewards(prompt, "own", fixed, 0)["rewards"]
            assert f"{sum(rewards) / len(rewards):.2f} {('with', 'at')[column]} the" in said
            for row in rows:
                tenth = float(row.locator("th").inner_text())
                count = sum(abs(reward - tenth) < 0.05 for reward in rewards)
                assert row.locator(".number").nth(column).inner_text() == str(count)


def test_the_next_prompt_and_new_random_numbers_change_the_responses(visited, table):
    page = visited.page
    first = words_of(page, "fixed-strip")
    page.get_by_role("button", name="Write again").click()
    settle(page)
    assert words_of(page, "fixed-strip") != first
    page.get_by_role("button", name="Next prompt").click()
    settle(page)
    prompt = page.get_by_label("Or type one").input_value()
    assert prompt == table.prompts("math")["prompts"][1]
    answer = table.write(prompt, "math", 1, 1)
    assert words_of(page, "fixed-strip") == [word["text"] for word in answer["words"]]


def test_a_typed_prompt_is_answered_and_rewarded_if_a_task_knows_it(visited, table):
    page = visited.page
    page.get_by_label("Or type one").fill(f"  {MATH}\n")
    page.keyboard.press("Enter")
    page.get_by_text("(math)").first.wait_for()
    settle(page)
    answer = table.write(MATH, None, None, 0)
    assert words_of(page, "head-strip") == [word["text"] for word in answer["words"]]
    type_in(page, "7 apples")
    page.get_by_text("No task knows this prompt").first.wait_for()
    page.get_by_role("button", name="Write twenty").click()
    page.get_by_text("a task must know the prompt").wait_for()


def type_in(page, prompt):
    page.get_by_label("Or type one").fill(prompt)
    page.locator("form").get_by_role("button", name="Write", exact=True).click()


WRONG = {
    "Tell me of a zzyzx.": "trained on, got 'zzyzx'",
    "7 " * 99: "model's 80 tokens",
    "  ": "prompt must be a text",
    "<b>7</b>": "trained on, got '<'",
}


def test_a_prompt_without_an_answer_is_refused_in_one_line_and_nothing_old_stays(visited):
    page = visited.page
    for typed, complaint in WRONG.items():
        type_in(page, typed)
        alert = page.get_by_role("alert").filter(has_text=complaint)
        alert.wait_for()
        page.locator("[aria-busy]").first.wait_for(state="detached")
        assert page.locator(".word, #place-bars tr").count() == 0
        page.get_by_role("button", name="Next prompt").click()
        settle(page)
        assert not alert.is_visible()
    type_in(page, typed)
    alert.wait_for()
    assert visited.errors == [] and visited.low_contrast() == [] and visited.too_wide() == []


def test_everything_can_be_done_by_keyboard(visited):
    page = visited.page
    page.keyboard.press("Tab")
    seen = []
    while name := page.evaluate("document.activeElement.id || document.activeElement.className"):
        seen.append(name)
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", name
        page.keyboard.press("Tab")
    controls = ["task", "listed", "next", "prompt", "again", "word", "fixed", "heat", "sample"]
    assert [name for name in seen if name in controls] == [*controls[:7], "word", *controls[7:]]
    page.locator("#head-strip .word").first.focus()
    for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("Home", 0)):
        page.keyboard.press(key)
        focused = "document.activeElement"
        assert page.evaluate(f"[...{focused}.parentNode.children].indexOf({focused})") == place
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    pressed = page.get_by_role("button", pressed=True)
    assert pressed.count() == 1 and pressed.evaluate("e => e === document.activeElement")


def test_a_screen_reader_finds_its_way(visited):
    page = visited.page
    fill_everything(page)
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.get_by_role("main").count() == 1 and page.locator("html[lang=en]").count() == 1
    for name in ("The prompt", "What the head chooses", "Two responses", "The next word", "Twenty"):
        assert page.get_by_role("region", name=name).count() == 1
    for role, name in (
        *(("combobox", "Task"), ("combobox", "Prompts unseen"), ("textbox", "Or type one")),
        *(("slider", "The fixed temperature"), ("slider", "Temperature")),
        *(("group", "The head chooses"), ("group", "One fixed temperature: 1")),
        *(("table", "How likely each next word is"), ("table", "How many of twenty responses")),
    ):
        assert page.get_by_role(role, name=name).count() >= 1, name
    assert page.get_by_role("rowheader").count() > N_WORDS
    assert page.get_by_role("status").count() == 4
    assert page.locator(".bar:not([aria-hidden=true])").count() == 0  # its number says it


@pytest.mark.parametrize("colour_scheme", ["light", "dark"])
def test_all_text_is_easy_to_read_and_nobody_scrolls_sideways(chromium, server, colour_scheme):  # noqa: F811
    with visit(chromium, server.address, color_scheme=colour_scheme) as visited:
        settle(visited.page)
        fill_everything(visited.page)
        assert visited.low_contrast() == [] and visited.too_wide() == []
        assert visited.page.evaluate("document.getAnimations().length") == 0


class Hostile(Table):
    """Every text that a task or a model may write is an attempt to become markup."""

    def about(self):
        return {**super().about(), "name": HOSTILE}

    def prompts(self, task):
        return {"prompts": [HOSTILE, "7 apples"]}

    def write(self, prompt, picked_from, fixed, seed):
        word = {"text": HOSTILE, "has_space": True, "temperature": 0.5, "colour": "#76b2e7"}
        words = [{**word, "token_id": 5}, {**word, "token_id": 6, "colour": HOSTILE}]
        return {"words": words, "reward": 0.5, "task": HOSTILE}

    def place(self, prompt, token_ids, taken, temperature):
        word = {"text": HOSTILE, "prob": 0.5, "taken": True}
        return {"words": [word], "rest": 0.5, "n_rest": 1, "head": [0.5, 0.25, 0.25]}

    def rewards(self, prompt, picked_from, fixed, seed):
        raise ValueError(HOSTILE)


def test_hostile_text_stays_text(chromium, tokenizer, tasks):  # noqa: F811
    with serving(table_of("token", tokenizer, tasks, Hostile)) as server:
        with visit(chromium, server.address) as visited:
            page = visited.page
            settle(page)
            page.locator("#head-strip .word").nth(1).click()
            page.get_by_role("button", name="Write twenty").click()
            page.get_by_role("alert").filter(has_text="window.hacked").wait_for()
            assert page.evaluate("window.hacked") is None and visited.errors == []
            assert page.title() == "minilpo play"
            assert page.locator("img").count() == 0 and page.locator("script").count() == 1
            assert words_of(page, "head-strip") == [HOSTILE] * 2
            assert page.locator("#place-bars th").first.text_content() == HOSTILE
            assert page.locator("#listed option").first.text_content() == HOSTILE
            assert visited.too_wide() == []
            assert {url.rsplit("/", 1)[0] for url in visited.requests} <= {
                server.address.rstrip("/"),
                server.address + "ask",
                "data:,",
            }


def test_when_the_program_has_ended_the_page_says_so(chromium, table):  # noqa: F811
    with serving(table) as server:
        with visit(chromium, server.address) as visited:
            settle(visited.page)
            server.shutdown()
            server.server_close()
            visited.page.get_by_role("button", name="Next prompt").click()
            visited.page.get_by_text("Start minilpo play again").wait_for()
