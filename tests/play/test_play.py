"""The answers to the page, and nobody else gets any. Its looks: `test_play_in_a_browser`."""

import http.client
import json
import re
import signal
import socket
import threading
import webbrowser
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from minilpo.decoding.choices import Temperatures
from minilpo.decoding.sampling import token_probs
from minilpo.play import server as server_module
from minilpo.play.server import FILES, LONGEST_BODY, Server, serve
from minilpo.play.table import N_PROMPTS, N_SAMPLES, N_WORDS, Table
from minilpo.show.samples import Sampler
from minilpo.tasks import calling, split_of
from tests.play.tables import MATH, Own, serving, table_of

AT_START = {"prompt": MATH, "token_ids": [], "taken": None, "temperature": 0.5}
WRITE = {"prompt": MATH, "picked_from": None, "fixed": None, "seed": 0}


@pytest.fixture(scope="module")
def tables(tokenizer, tasks):
    return {level: table_of(level, tokenizer, tasks) for level in ("sequence", "token")}


@pytest.fixture(scope="module")
def table(tables):
    return tables["sequence"]


def logits_after(table, prompt, token_ids):
    """Logits by the model alone, without batches and caches."""
    [read] = table.lm.encode([prompt])
    model = table.lm.model
    return model.logits(model(torch.tensor([read + token_ids]))[0, -1])


# The answers


@pytest.mark.parametrize("temperature", [0, 0.05, 0.7, 1, 2])
def test_the_next_words_have_the_probabilities_of_equation_2(table, temperature):
    token_ids = table.lm.tokenizer.encode("7 + 5")
    place = table.answer("place", {**AT_START, "token_ids": token_ids, "temperature": temperature})
    logits = logits_after(table, MATH, token_ids)
    probs = token_probs(logits, torch.tensor(float(temperature))).sort(descending=True).values
    shown = [word["prob"] for word in place["words"]]
    assert shown == pytest.approx(probs[:N_WORDS].tolist(), abs=1e-5)
    assert place["rest"] == pytest.approx(probs[N_WORDS:].sum().item(), abs=1e-5)
    assert place["n_rest"] + len(shown) == table.lm.tokenizer.vocab_size
    pieces = table.lm.tokenizer.pieces(logits.argsort(descending=True)[:N_WORDS].tolist())
    assert [word["text"] for word in place["words"]] == [
        "(end)" if piece == "<eos>" else piece.strip() for piece in pieces
    ]


def test_the_word_that_was_written_is_shown_however_unlikely(table):
    order = logits_after(table, MATH, []).argsort(descending=True).tolist()
    for rank, n_shown in ((3, N_WORDS), (-1, N_WORDS + 1)):
        place = table.answer("place", {**AT_START, "taken": order[rank]})
        assert [word["taken"] for word in place["words"]].index(True) == rank % n_shown
        assert len(place["words"]) == n_shown
        total = sum(word["prob"] for word in place["words"]) + place["rest"]
        assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_the_head_is_shown_where_it_decides(tables, level):
    table = tables[level]
    token_ids = table.lm.tokenizer.encode("7 + 5")
    for read, is_asked in (([], True), (token_ids, level == "token")):
        [prompt] = table.lm.encode([MATH])
        hidden_states = table.lm.model(torch.tensor([prompt + read]))[0, -1]
        expected = table.head(hidden_states).softmax(-1).tolist()
        shown = table.answer("place", {**AT_START, "token_ids": read})["head"]
        assert shown == pytest.approx(expected, abs=1e-5) if is_asked else shown is None


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_response_is_the_one_that_minilpo_sample_writes(tables, level):
    table = tables[level]
    sampler = Sampler(table.lm, list(table.tasks.values()), table.head, table.choices, seed=3)
    strip, lines = sampler.with_head(MATH)
    answer = table.answer("write", {**WRITE, "seed": 3})
    assert [word["text"] for word in answer["words"]] == [piece.strip() for piece in strip.pieces]
    assert [word["name"] for word in answer["words"]] == [strip.names[k] for k in strip.choice_ids]
    assert lines[-1] == f"reward: {answer['reward']:.2f} ({answer['task']})"
    fixed = table.answer("write", {**WRITE, "seed": 3, "fixed": 0.25})
    text = "".join(" " * word["has_space"] + word["text"] for word in fixed["words"]).strip()
    assert text in sampler.at(0.25, MATH)
    token_ids = [word["token_id"] for word in fixed["words"]]
    assert table.lm.decode(token_ids) == text


def test_every_temperature_has_a_colour_also_above_the_hottest_choice(table, tokenizer, tasks):
    two = table_of("sequence", tokenizer, tasks)
    two.choices = Temperatures([0.0, 1.0])
    for fixed in (0, 0.01, 0.5, 1, 2):
        for word in two.answer("write", {**WRITE, "fixed": fixed})["words"]:
            assert re.fullmatch("#[0-9a-f]{6}", word["colour"])
    about = two.answer("about", {})["temperatures"]
    assert word["colour"] == about[-1]["colour"] == "#f5a65c"
    assert about[0] == {"value": 0.0, "name": "0", "colour": "#76b2e7"}


def test_prompts_are_different_and_unseen_in_training(table):
    for name in table.tasks:
        prompts = table.answer("prompts", {"task": name})["prompts"]
        assert len(set(prompts)) == len(prompts) > N_PROMPTS / 2
        assert {split_of(prompt) for prompt in prompts} == {"test"}


def test_a_prompt_of_a_users_task_is_rewarded_if_it_was_picked_and_not_if_it_was_typed(tokenizer):
    table = table_of("sequence", tokenizer, [Own()])
    [prompt, *_] = table.answer("prompts", {"task": "own"})["prompts"]
    picked = {"prompt": prompt, "picked_from": "own", "fixed": 1, "seed": 0}
    typed = {**picked, "picked_from": None}
    assert 0 <= table.answer("write", picked)["reward"] <= 1
    assert table.answer("write", typed)["reward"] is None
    rewards = table.answer("rewards", picked)["rewards"]
    assert len(rewards) == N_SAMPLES and len(set(rewards)) > 1
    with pytest.raises(ValueError, match="a task must know the prompt"):
        table.answer("rewards", typed)


PROMPT, LONG = "prompt must be a text", "7 " * 90 + "7"
WRONG = [
    ("secrets", {}, "a question must be one of about, "),
    ("__init__", {}, "a question must be one of about, "),
    ("about", {"self": 1}, r"about must be asked with \[\], got \[self\]"),
    ("place", {"prompt": MATH}, r"place must be asked with \[prompt, token_ids, "),
    *[("prompts", {"task": t}, "task must be one of math") for t in (None, ["math"], "../math")],
    *[("write", {**WRITE, "prompt": p}, PROMPT) for p in ("", " \n", 7, None, [], "half \ud83d")],
    ("write", {**WRITE, "prompt": "a" * 2001}, "at most 2000 characters"),
    ("write", {**WRITE, "prompt": "Tell me of a zzyzx."}, "trained on, got 'zzyzx'"),
    ("write", {**WRITE, "prompt": "fox\x00"}, "trained on"),
    ("write", {**WRITE, "prompt": LONG}, "model's 80 tokens"),
    ("place", {**AT_START, "prompt": LONG}, "must fit into the model's 80 tokens"),
    ("write", {**WRITE, "picked_from": "instruct"}, "picked_from must be null or one of"),
    *[("write", {**WRITE, "fixed": t}, "fixed must be null") for t in (-1, 2.01, 1e-9, "1", True)],
    *[("write", {**WRITE, "fixed": t}, "fixed must") for t in (float("nan"), 10**400, 1e400, [1])],
    ("place", {**AT_START, "temperature": None}, "temperature must be 0, or from 0.01 to 2"),
    *[("write", {**WRITE, "seed": s}, "seed must be") for s in (-1, 10**6, 1.0, None, "1", True)],
    *[
        ("place", {**AT_START, "token_ids": ids}, "token_ids must be a list")
        for ids in ("12", [-1], [10**9], [1.5], [None], [True], [5] * 81, None)
    ],
    ("place", {**AT_START, "taken": 10**9}, "taken must be null or a whole number"),
]


def test_a_wrong_question_is_refused_in_a_line(table):
    for question, asked, complaint in WRONG:
        with pytest.raises(ValueError, match=complaint):
            table.answer(question, asked)


# Nobody else gets any


@pytest.fixture(scope="module")
def server(table):
    with serving(table) as server:
        yield server


def send(server, method="GET", place="", body=None, **headers):
    """A request as a browser sends it, but for the given headers; None leaves one out."""
    port, token = server.server_port, server.token
    given = {"Host": f"127.0.0.1:{port}", "Content-Type": "application/json"}
    given |= {} if body is None else {"Content-Length": str(len(body))}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    path = place if place.startswith("/") else f"/{token}/{place}"
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in given.items():
        for one in [value] if isinstance(value, str) else value or []:  # several of one name
            connection.putheader(name, one)
    connection.endheaders(body)
    reply = connection.getresponse()
    data = reply.read()
    connection.close()
    return reply, data


def ask(server, question="about", asked=b"{}", **headers):
    reply, data = send(server, "POST", f"ask/{question}", asked, **headers)
    return reply.status, json.loads(data)


def test_the_page_is_handed_out_to_this_machine_with_headers_that_shut_everything_else_out(server):
    assert server.server_address[0] == "127.0.0.1" and len(server.token) >= 32
    for place, (name, kind) in FILES.items():
        reply, data = send(server, place=place)
        assert reply.status == 200 and reply.headers["Content-Type"] == f"{kind}; charset=utf-8"
        assert data == Path(server_module.__file__).with_name(name).read_bytes()
        policy = reply.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
        wanted = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        wanted |= {"Cache-Control": "no-store", "Server": "minilpo"}
        assert {name: reply.headers[name] for name in wanted} == wanted
        assert "Access-Control-Allow-Origin" not in reply.headers


@pytest.mark.parametrize(
    "place", ["", "/", "/page.js", "/wrong/", "/é/", "//", "/{token}", "/{token}x/"]
)
def test_without_the_token_nothing_is_told(server, place):
    path = place.replace("{token}", server.token) or "*"
    for method in ("GET", "POST"):
        request = f"{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{server.server_port}\r\n"
        with socket.create_connection(server.server_address) as connection:
            connection.sendall(f"{request}Content-Length: 0\r\n\r\n".encode())
            reply = connection.makefile("rb").read().decode()
        assert " 403 " in reply.splitlines()[0] and server.token not in reply


@pytest.mark.parametrize(
    "name, value",
    [
        ("Host", "evil.example"),
        ("Host", "127.0.0.1"),
        ("Host", None),
        ("Host", "{host} evil.example"),
        ("Host", "evil.example:{port}"),
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Origin", "https://{host}"),
        ("Origin", "http://localhost:1"),
        ("Origin", "http://{host} http://evil.example"),
    ],
)
def test_a_foreign_host_or_origin_is_refused_even_with_the_token(server, name, value):
    host = f"127.0.0.1:{server.server_port}"
    headers = {name: value and value.format(host=host, port=server.server_port).split()}
    assert ask(server, **headers)[0] == 403
    assert send(server, **headers)[0].status == 403


def test_the_page_itself_may_ask_under_both_names_of_this_machine(server):
    for name in ("127.0.0.1", "localhost"):
        host = f"{name}:{server.server_port}"
        status, answer = ask(server, Host=host, Origin=f"http://{host}")
        assert status == 200 and answer["name"] == "mine"


def test_only_short_json_objects_are_read(server):
    assert ask(server, Content_Type="text/plain")[0] == 415
    assert ask(server, Content_Type="application/x-www-form-urlencoded")[0] == 415
    for body in (b"", b"[]", b"nonsense", b"\xff", b"[" * 9000, b'"about"'):
        assert ask(server, asked=body)[0] == 400
    assert ask(server, asked=b"{}" + b" " * (LONGEST_BODY - 2))[0] == 200
    assert ask(server, Content_Length=str(LONGEST_BODY + 1))[0] == 413
    assert ask(server, Content_Length="9" * 5000)[0] == 413
    for length in (None, "", "-1", "x", "²"):
        value = length.encode().decode("latin-1") if length else length
        assert ask(server, Content_Length=value)[0] == 411
    assert ask(server, Transfer_Encoding="chunked")[0] == 411


def test_other_places_and_other_methods_lead_nowhere(server):
    for place in ("table.py", "../server.py", "ask/about", "page.html", "%2e%2e/", "page.css/"):
        assert send(server, place=place)[0].status == 404
    assert send(server, "POST", "", b"{}")[0].status == 404
    for method in ("PUT", "DELETE", "OPTIONS", "NONSENSE"):
        assert send(server, method)[0].status == 501


def test_a_complaint_is_one_line_that_is_never_too_long(server):
    asked = json.dumps({**WRITE, "prompt": "x" * 1999}).encode()
    status, answer = ask(server, "write", asked)
    assert status == 400 and "every word must be one" in answer["error"]
    assert "\n" not in answer["error"] and len(answer["error"]) <= 600
    status, answer = ask(server, "<b>")
    assert status == 400 and answer["error"].endswith("got '<b>'")


def test_a_connection_that_says_nothing_holds_nobody_up(server):
    with socket.create_connection(server.server_address) as silent:
        silent.sendall(b"POST /")
        with socket.create_connection(server.server_address) as half:
            head = f"POST /{server.token}/ask/about HTTP/1.1\r\nContent-Length: 100\r\n\r\n{{"
            half.sendall(head.encode())
            assert ask(server)[0] == 200


def test_a_connection_that_says_nothing_is_closed_in_the_end(table, monkeypatch):
    assert 1 <= server_module.Handler.timeout <= 30  # seconds
    monkeypatch.setattr(server_module.Handler, "timeout", 0.1)
    with serving(table) as server, socket.create_connection(server.server_address, 20) as silent:
        assert silent.recv(1) == b""


class Broken(Table):
    def about(self):
        raise TypeError("not the reader's\nfault")


def test_an_error_of_our_own_is_told_and_the_page_lives_on(tokenizer, tasks):
    with serving(table_of("token", tokenizer, tasks, Broken)) as server:
        status, answer = ask(server)
        assert status == 500
        assert answer["error"] == "minilpo couldn't answer: TypeError: not the reader's fault"
        assert ask(server, "prompts", b'{"task": "math"}')[0] == 200


def test_a_flood_of_questions_is_refused(table, monkeypatch):
    monkeypatch.setattr(server_module, "MOST_WAITING", 1)
    with Server(table) as server:
        server.questions.put_nowait((None, "about", {}))  # nobody answers
        assert ask(server)[0] == 503


class Endless(Own):
    def reward(self, prompt, response):
        while True:
            pass


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no alarm")
def test_a_users_code_that_doesnt_end_is_stopped(tokenizer, monkeypatch):
    """The questions are answered in the main thread, where an alarm can interrupt them."""
    monkeypatch.setattr(calling, "LIMIT", 0.3)
    with Server(table_of("sequence", tokenizer, [Endless()])) as server:
        answers = []

        def page():
            asked = {"prompt": "7 apples", "picked_from": "own", "fixed": 1, "seed": 0}
            answers.append(ask(server, "write", json.dumps(asked).encode()))
            server.is_open = False

        asking = threading.Thread(target=page)
        asking.start()
        server.answer_questions()
        asking.join()
    [(status, answer)] = answers
    assert status == 400 and "took longer than 0.3 seconds" in answer["error"]


# The command


@pytest.fixture
def run(table, tmp_path):
    """As much of a run as is looked at."""
    lm, head = table.lm, table.head
    members = {"path": tmp_path / "mine", "tasks": list(table.tasks.values())}
    members |= {"choices": table.choices, "head": lambda: head, "log": lambda step: []}
    return SimpleNamespace(language_model=lambda trained: lm, **members)


@pytest.mark.parametrize("open_browser", [True, False])
def test_the_address_is_printed_and_opened_and_after_ctrl_c_nobody_answers(
    run, monkeypatch, capsys, open_browser
):
    opened, told, kept = threading.Event(), [], []

    def answer_until_stopped(server):
        kept.append(server)  # it isn't closed just because nobody needs it any more
        told.append(send(server)[0].status)
        assert not open_browser or opened.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(webbrowser, "open", lambda address: (told.append(address), opened.set()))
    monkeypatch.setattr(Server, "answer_questions", answer_until_stopped)
    with pytest.raises(KeyboardInterrupt):
        serve(run, 0, open_browser)
    address, hint = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", address) and "Ctrl-C" in hint
    assert sorted(map(str, told)) == ["200", *[address] * open_browser]
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", int(address.split(":")[2].split("/")[0])), 5)


def test_a_port_that_is_taken_or_none_for_a_user_is_refused_in_a_line(run, table):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port must be one .* got {port}; choose another"):
            serve(run, port, False)
    for port in (-1, 1, 80, 1023, 65536, 10**9):
        with pytest.raises(ValueError, match=f"--port must be from 1024 to 65535, .* got {port}"):
            Server(table, port)


# The page's own text


def test_the_script_puts_text_into_the_page_as_text_only():
    script = Path(server_module.__file__).with_name("page.js").read_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval", "Function("):
        assert way not in script.replace("textContent", "")


def test_the_page_names_no_other_address_and_has_no_script_or_style_within_its_text():
    folder = Path(server_module.__file__).parent
    texts = {name: (folder / name).read_text() for name, _ in FILES.values()}
    assert not re.search(r"https?:|@import|url\(", "".join(texts.values()))
    page = texts["page.html"]
    assert set(re.findall(r'(?:href|src)="([^"]*)"', page)) == {"data:,", "page.css", "page.js"}
    assert not re.search(r'\bstyle="|\bon\w+="|<style|<script(?! src=)', page)
