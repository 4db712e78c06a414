// The page: choices, and the parts that show them.

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
let choices = 0;

const detail = new Detail(
  (index) => {
    state.image = index;
    keep();
  },
  (end, point, itsModel) => {
    if (itsModel !== model) return;
    state[end] = point;
    keep();
    between.start(model, state.start, state.end);
  },
  (index, by) => grid.beside(index, by),
);
const grid = new Grid(
  (index) => {
    history.pushState(null, "", write({ ...state, image: index })); // so that Back closes it
    detail.open(model, state, index);
  },
  (index) => write({ ...state, image: index }),
);
const between = new Between();
const take = new Take();

/** Write the choices to the page's URL. */
function keep() {
  history.replaceState(null, "", write(state));
}

/** Show the images of the choices, after a short time without changes. */
function settle() {
  showValues();
  keep();
  clearTimeout(settling);
  settling = setTimeout(() => {
    grid.start(model, state);
    take.start(model, state);
  }, SETTLE_MS);
}

function showValues() {
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

/** Load a version of a model, or its default version; false if another was chosen meanwhile. */
async function choose(name, version) {
  const choice = (choices += 1);
  const { versions, version: fallback } = models.find((each) => each.name === name);
  const loaded = await Model.load(name, versions.includes(version) ? version : fallback);
  if (choice !== choices) return false;
  model = loaded;
  Object.assign(state, { model: name, version: model.version, labels: model.known(state.labels) });
  $("model").value = name;
  $("version").replaceChildren(...versions.map(option));
  $("version").value = model.version;
  $("attributes").replaceChildren(...model.attributes.map(chips));
  $("verify-row").hidden = !model.verifiable;
  document.title = `${name} ${model.version} · Figment studio`;
  return true;
}

async function change(name, version) {
  $("detail").close();
  const chosen = await attempt($("found"), () => choose(name, version));
  if (chosen) {
    state.start = state.end = null;
    between.start(model, null, null);
    settle();
  } else if (chosen === undefined) {
    $("model").value = model.name; // restore the previous choice
    $("version").value = model.version;
  }
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
  showValues();
  grid.start(model, state);
  if (state.image !== null) detail.open(model, state, state.image);
  between.start(model, state.start, state.end);
  take.start(model, state);
  keep();
  for (const part of document.querySelectorAll("[inert]")) part.inert = false;
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
$("unpin").addEventListener("click", () => {
  state.start = state.end = null;
  keep();
  between.start(model, null, null);
});
addEventListener("popstate", () => {
  const { image } = read(location.search);
  if (image === null) $("detail").close();
  else detail.open(model, state, image);
});
if (matchMedia("(max-width: 40rem)").matches) $("fold").open = false;
wire();
attempt($("found"), begin);
