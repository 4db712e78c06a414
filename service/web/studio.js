// The page: what is chosen, and what follows from it.

import { Between } from "./between.js";
import { showCard } from "./card.js";
import { Detail } from "./detail.js";
import { Grid } from "./grid.js";
import { Model } from "./model.js";
import { $, make, wire } from "./page.js";
import { attempt, json } from "./server.js";
import { read, write } from "./state.js";
import { Take } from "./take.js";

const SETTLE_MS = 250;

const state = read(location.search);
let models = [];
let model;
let settling;

const detail = new Detail(
  (index) => {
    state.image = index;
    keep();
  },
  (end, point) => {
    state[end] = point;
    keep();
    between.start(model, state.start, state.end);
  },
);
const grid = new Grid(
  (index) => detail.open(model, state, index),
  (index) => write({ ...state, image: index }),
);
const between = new Between();
const take = new Take();

/** The choices go into the page's address. */
function keep() {
  history.replaceState(null, "", write(state));
}

/** Make what was chosen, once nothing has changed for a moment. */
function settle() {
  say();
  keep();
  clearTimeout(settling);
  settling = setTimeout(() => {
    grid.start(model, state);
    take.start(model, state);
  }, SETTLE_MS);
}

function say() {
  $("truncation-said").textContent = state.truncation;
  $("verify-said").textContent = state.verify ? `${state.verify} or more` : "off";
}

function chips({ name, values }) {
  const chip = (value, text) => {
    const input = make("input", { type: "radio", name: `label.${name}`, value });
    input.checked = (state.labels[name] ?? "") === value;
    input.addEventListener("change", () => {
      if (value) state.labels[name] = value;
      else delete state.labels[name];
      settle();
    });
    return make("label", { className: "chip" }, input, make("span", {}, text));
  };
  const all = [chip("", "any"), ...values.map((value) => chip(value, value))];
  return make("fieldset", {}, make("legend", {}, name), ...all);
}

const option = (value) => make("option", { value }, String(value));

async function choose(name, version) {
  const { versions } = models.find((each) => each.name === name);
  const highest = Math.max(...versions);
  model = await Model.load(name, versions.includes(version) ? version : highest);
  Object.assign(state, { model: name, version: model.version, labels: model.known(state.labels) });
  $("model").value = name;
  $("version").replaceChildren(...versions.map(option));
  $("version").value = model.version;
  $("attributes").replaceChildren(...model.attributes.map(chips));
  $("verify-row").hidden = !model.verifiable;
  document.title = `${name} ${model.version} · Figment studio`;
}

async function change(name, version) {
  await choose(name, version);
  state.start = state.end = null;
  between.start(model, null, null);
  settle();
}

async function begin() {
  ({ models } = await json("/models"));
  const preferred = models.find((each) => each.default && each.kind === "conditional") ?? models[0];
  const known = models.some((each) => each.name === state.model);
  $("model").replaceChildren(...models.map(({ name }) => option(name)));
  await choose(known ? state.model : preferred.name, state.version);
  $("seed").value = state.seed;
  $("truncation").value = state.truncation;
  $("verify").value = state.verify;
  say();
  grid.start(model, state);
  if (state.image !== null) detail.open(model, state, state.image);
  between.start(model, state.start, state.end);
  take.start(model, state);
  keep();
}

$("wishes").addEventListener("submit", (event) => event.preventDefault());
$("model").addEventListener("change", () => change($("model").value, null));
$("version").addEventListener("change", () => change(state.model, Number($("version").value)));
$("show-card").addEventListener("click", () => showCard(model));
$("seed").addEventListener("input", () => {
  if (!$("seed").validity.valid) return;
  state.seed = Number($("seed").value);
  settle();
});
$("another-seed").addEventListener("click", () => {
  state.seed = Math.floor(Math.random() * 1e6);
  $("seed").value = state.seed;
  settle();
});
for (const name of ["truncation", "verify"]) {
  $(name).addEventListener("input", () => {
    state[name] = Number($(name).value);
    settle();
  });
}
wire();
attempt($("found"), begin);
