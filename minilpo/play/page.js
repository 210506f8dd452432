// The page of `minilpo play`. It asks the program on this machine and shows what that answers.
//
// It computes nothing of the model: every probability comes from Python, as it is. Text goes into
// the page by `textContent` only, so whatever a task or a model writes stays text.
"use strict";

const HEAD_LEVELS = {
  sequence: "It reads the prompt and gives each temperature a probability. " +
    "The likeliest one (→) writes the whole response.",
  token: "It reads the text so far and gives each temperature a probability. " +
    "The likeliest one (→) writes the next word.",
};
const PAUSE = 80; // milliseconds that a slider must rest before anything is asked
const TENTHS = [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];

let run; // what the program says of the run
let picked = []; // the prompts in the list
let seed = 0; // of the sampling
let current = { prompt: "", picked_from: null }; // what both responses respond to
let place = { token_ids: [], taken: null, before: "" }; // the word that was picked

const byId = (id) => document.getElementById(id);
const temperature = (value) => String(Number(value.toFixed(2)));

// What isn't quite 0 or 1 doesn't look as if it were.
function percent(share) {
  if (share === 0 || share === 1) return 100 * share + "%";
  if (share < 0.0005) return "<0.1%";
  return share >= 0.9995 ? ">99.9%" : (100 * share).toFixed(1) + "%";
}

// Asking

async function ask(question, asked) {
  const reply = await fetch("ask/" + question, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(asked),
  }).catch(() => {
    throw new Error("The program doesn't answer any more. Start minilpo play again.");
  });
  const answer = await reply.json();
  if (!reply.ok) throw new Error(answer.error);
  return answer;
}

const newest = {}; // the number of the last question of each part of the page

// Asks for a part of the page. An answer that comes after a newer question is dropped; if there is
// none, the part stays empty rather than showing what belongs to another prompt.
async function fill(part, asking, show) {
  const number = (newest[part] = (newest[part] || 0) + 1);
  byId(part).setAttribute("aria-busy", "true");
  try {
    const answer = await asking();
    if (number === newest[part]) show(answer);
  } catch (error) {
    if (number === newest[part]) {
      complain(error.message);
      byId(part).querySelectorAll(".word, tbody tr").forEach((piece) => piece.remove());
    }
  }
  if (number === newest[part]) byId(part).removeAttribute("aria-busy");
}

function complain(message) {
  byId("error").textContent = message;
  byId("error").hidden = !message;
}

function afterPause(action) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, PAUSE);
  };
}

// Small pieces of the page

function element(kind, text = "", className = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  made.className = className;
  return made;
}

// Two cells of a table: a bar, which is for the eye only, and its number.
function barCells(share, number, colour = "") {
  const cell = element("td", "", "bar");
  const bar = element("div");
  bar.style.width = 100 * share + "%";
  bar.style.background = colour;
  cell.ariaHidden = "true";
  cell.append(bar);
  return [cell, element("td", number, "number")];
}

function row(name, cells, className = "") {
  const made = element("tr", "", className);
  const header = element("th", name);
  header.scope = "row";
  made.append(header, ...cells);
  return made;
}

// The prompt

async function start() {
  run = await ask("about", {});
  const level = run.level === "token" ? "before every word" : "once per response";
  byId("about").textContent = `The run “${run.name}”: its head chooses a temperature ${level}. ` +
    "All of this is computed on this machine.";
  byId("head-text").textContent = HEAD_LEVELS[run.level];
  byId("task").replaceChildren(...run.tasks.map((name) => element("option", name)));
  const legend = run.temperatures.map(({ name, colour }) => {
    const key = element("span", name, "key");
    key.style.background = colour;
    return key;
  });
  byId("legend").replaceChildren("Temperature ", ...legend);
  const hottest = run.temperatures[run.temperatures.length - 1].value;
  byId("fixed").value = Math.min(hottest, 1);
  showSliders();
  listPrompts();
}

function listPrompts() {
  fill("prompts", () => ask("prompts", { task: byId("task").value }), ({ prompts }) => {
    picked = prompts;
    byId("listed").replaceChildren(...prompts.map((prompt) => element("option", prompt)));
    pick(0);
  });
}

function pick(number) {
  byId("listed").selectedIndex = number;
  byId("prompt").value = picked[number];
  respondTo(picked[number], byId("task").value);
}

function respondTo(prompt, task) {
  current = { prompt, picked_from: task };
  complain("");
  byId("histogram").hidden = true;
  byId("rewards-about").textContent = "";
  pickPlace({ token_ids: [], taken: null, before: "" }, Number(byId("fixed").value));
  writeBoth();
}

// What was typed is one line with single spaces, as in a terminal. A prompt of the list stays as it
// is.
function respondToTyped() {
  const typed = byId("prompt").value;
  if (typed === current.prompt) return writeBoth();
  respondTo(typed.trim().split(/\s+/).join(" "), null);
}

// The responses

function writeBoth() {
  write("head-strip", null);
  write("fixed-strip", Number(byId("fixed").value));
}

function write(part, fixed) {
  const asked = { ...current, fixed, seed };
  const about = byId(part.replace("strip", "about"));
  about.textContent = "";
  fill(part, () => ask("write", asked), ({ words, reward, task }) => {
    about.textContent = summary(words, fixed) +
      (task === null ? "No task knows this prompt, so there is no reward."
        : `Reward ${reward.toFixed(2)} (${task}).`);
    showStrip(byId(part), words, run.level === "token" && fixed === null);
  });
}

function summary(words, fixed) {
  if (fixed !== null || !words.length) return "";
  const [first] = words;
  if (run.level === "sequence") return `Temperature ${first.name}. `;
  const sum = words.reduce((total, word) => total + word.temperature, 0);
  return `Temperature ${(sum / words.length).toFixed(2)} on average. `;
}

function showStrip(strip, words, withNames) {
  strip.replaceChildren();
  words.forEach((word, i) => {
    const button = element("button", word.text, "word");
    if (withNames) button.append(element("small", word.name));
    button.type = "button";
    button.style.background = word.colour;
    button.tabIndex = i === 0 ? 0 : -1; // one stop of the Tab key for all words: arrows do the rest
    button.ariaPressed = "false";
    button.onclick = () => pickWord(strip, words, i);
    strip.append(word.has_space ? " " : "", button);
  });
}

function pickWord(strip, words, i) {
  document.querySelectorAll(".word").forEach((button) => (button.ariaPressed = "false"));
  [...strip.children].forEach((button, k) => (button.tabIndex = k === i ? 0 : -1));
  strip.children[i].ariaPressed = "true";
  const earlier = words.slice(0, i);
  const before = earlier.map(({ text, has_space }) => (has_space ? " " : "") + text).join("");
  const token_ids = earlier.map((word) => word.token_id);
  pickPlace({ token_ids, taken: words[i].token_id, before }, words[i].temperature);
}

function moveAlong(event) {
  const buttons = [...event.currentTarget.children];
  const here = buttons.indexOf(document.activeElement);
  const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: buttons.length - 1 };
  if (here < 0 || !buttons[to[event.key]]) return;
  event.preventDefault();
  buttons[here].tabIndex = -1;
  buttons[to[event.key]].tabIndex = 0;
  buttons[to[event.key]].focus();
}

// The next word

function pickPlace(where, heat) {
  place = where;
  byId("heat").value = heat;
  showSliders();
  showPlace();
}

function showPlace() {
  const { prompt } = current;
  const { token_ids, taken, before } = place;
  const asked = { prompt, token_ids, taken, temperature: Number(byId("heat").value) };
  fill("place", () => ask("place", asked), (answer) => {
    byId("before").textContent = (before || prompt).trim();
    const bars = answer.words.map((word) =>
      row(word.text, barCells(word.prob, percent(word.prob)), word.taken ? "taken" : ""));
    const others = `${answer.n_rest} others`;
    byId("place-bars").replaceChildren(
      ...bars, row(others, barCells(answer.rest, percent(answer.rest)), "rest"));
    const [first] = answer.words;
    byId("place-about").textContent = `At ${temperature(asked.temperature)}, “${first.text}” ` +
      `has ${percent(first.prob)}.` +
      (taken === null ? "" : " The arrow marks the word that was written.");
    if (answer.head) showHead(answer.head, before);
  });
}

function showHead(probs, before) {
  const likeliest = probs.indexOf(Math.max(...probs));
  byId("head-bars").replaceChildren(...probs.map((prob, k) => {
    const { name, colour } = run.temperatures[k];
    const cells = barCells(prob, percent(prob), colour);
    return row(name, cells, k === likeliest ? "taken" : "");
  }));
  const after = before ? `After “${before.trim()}”` : "For the first word";
  byId("head-place").textContent = run.level === "token" ? shortened(after) : "";
}

function shortened(text) {
  return text.length > 60 ? "After “… " + text.slice(-50) : text;
}

function showSliders() {
  byId("fixed-value").textContent = temperature(Number(byId("fixed").value));
  byId("heat-value").textContent = temperature(Number(byId("heat").value));
}

// The rewards of twenty

function sampleTwenty() {
  complain("");
  const fixed = Number(byId("fixed").value);
  byId("rewards-about").textContent = "Writing forty responses …";
  const both = () => Promise.all([null, fixed].map((t) =>
    ask("rewards", { ...current, fixed: t, seed })));
  fill("rewards", () => both().finally(() => (byId("rewards-about").textContent = "")),
    ([head, other]) => showHistogram(head.rewards, other.rewards, fixed));
}

function showHistogram(head, other, fixed) {
  const mean = (rewards) => (rewards.reduce((a, b) => a + b) / rewards.length).toFixed(2);
  const count = (rewards, tenth) => rewards.filter((r) => Math.round(10 * r) === tenth).length;
  const cells = (rewards, tenth) => {
    const n = count(rewards, tenth);
    return barCells(n / rewards.length, String(n));
  };
  byId("fixed-column").textContent = `Fixed ${temperature(fixed)}`;
  byId("rewards-bars").replaceChildren(...TENTHS.map((tenth) =>
    row((tenth / 10).toFixed(1), [...cells(head, tenth), ...cells(other, tenth)])));
  byId("rewards-about").textContent = `Mean reward ${mean(head)} with the head, ${mean(other)} at ` +
    `the fixed temperature ${temperature(fixed)}. Below, rewards are rounded to tenths.`;
  byId("histogram").hidden = false;
}

// What starts what

byId("task").onchange = listPrompts;
byId("listed").onchange = () => pick(byId("listed").selectedIndex);
byId("next").onclick = () => pick((byId("listed").selectedIndex + 1) % picked.length);
byId("again").onclick = () => { seed += 1; writeBoth(); };
byId("sample").onclick = sampleTwenty;
byId("form").onsubmit = (event) => { event.preventDefault(); respondToTyped(); };
byId("prompt").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); respondToTyped(); }
};
byId("head-strip").onkeydown = byId("fixed-strip").onkeydown = moveAlong;
byId("fixed").oninput = () => { showSliders(); writeFixed(); };
byId("heat").oninput = () => { showSliders(); showPlaceSoon(); };
const writeFixed = afterPause(() => write("fixed-strip", Number(byId("fixed").value)));
const showPlaceSoon = afterPause(showPlace);
start().catch((error) => complain(error.message));
