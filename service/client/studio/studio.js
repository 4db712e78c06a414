// The page: choices, and the parts that show them.

import { Between } from "./between.js";
import { showCard } from "./card.js";
import { Detail } from "./detail.js";
import { Grid } from "./grid.js";
import { Model } from "./model.js";
import { key } from "./key.js";
import { $, at, make, save, wire } from "./page.js";
import { attempt, blob, json } from "./server.js";
import { read, write } from "./state.js";
import { Take } from "./take.js";

const SETTLE_MS = 250;
const THRESHOLDS = [0, 0.5, 0.8, 0.9, 0.95, 0.99]; // probabilities of the classifier

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
    showPinned();
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

function showPinned() {
  keep();
  between.start(model, state.start, state.end);
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
  $("truncation-said").textContent = `${Math.round(100 * state.truncation)} %`;
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

const option = (value, text = value) => make("option", { value }, String(text));

function showThresholds() {
  const thresholds = [...new Set([...THRESHOLDS, state.verify])].sort((a, b) => a - b);
  const text = (value) => (value ? `at least ${Number((100 * value).toPrecision(9))} % sure` : "off");
  $("verify").replaceChildren(...thresholds.map((value) => option(value, text(value))));
  $("verify").value = state.verify;
}

/** Load a version of a model, or its default version; false if another was chosen meanwhile. */
async function choose(name, version) {
  const choice = (choices += 1);
  const { versions, version: fallback } = models.find((each) => each.name === name);
  const loaded = await Model.load(name, versions.includes(version) ? version : fallback);
  if (choice !== choices) return false;
  model = loaded;
  Object.assign(state, { model: name, version: model.version, labels: model.known(state.labels) });
  $("model").value = name;
  $("version").replaceChildren(...versions.map((each) => option(each, `version ${each}`)));
  $("version").value = model.version;
  $("attributes").replaceChildren(...model.attributes.map(chips));
  $("attributes").hidden = !model.attributes.length;
  $("verify-row").hidden = !model.verifiable;
  $("report").hidden = !model.report;
  if (model.report) $("report").href = at(model.report);
  document.title = `${name} ${model.version} · Figment studio`;
  return true;
}

async function change(name, version) {
  $("detail").close();
  $("notice").textContent = "";
  const chosen = await attempt($("found"), () => choose(name, version));
  if (chosen) {
    state.start = state.end = null;
    showPinned();
    settle();
  } else if (chosen === undefined) {
    $("model").value = model.name; // restore the previous choice
    $("version").value = model.version;
  }
}

/** Show what the link names; the result says what the service does not have. */
async function begin() {
  ({ models } = await json("/models"));
  const preferred = models.find((each) => each.default && each.kind === "conditional") ?? models[0];
  const wanted = { name: state.model, version: state.version };
  const known = models.find(({ name }) => name === wanted.name);
  if (wanted.name && !known) Object.assign(state, { version: null, image: null, start: null, end: null });
  $("model").replaceChildren(...models.map(({ name }) => option(name)));
  await choose((known ?? preferred).name, state.version);
  $("seed").value = state.seed;
  $("truncation").value = state.truncation;
  showThresholds();
  showValues();
  grid.start(model, state);
  if (state.image !== null) detail.open(model, state, state.image);
  between.start(model, state.start, state.end);
  take.start(model, state);
  keep();
  for (const part of document.querySelectorAll("body > [inert]")) part.inert = false;
  const instead = `This is ${model.name}, version ${model.version}.`;
  if (wanted.name && !known) return `This service has no model ${wanted.name}. ${instead}`;
  if (wanted.version && wanted.version !== model.version) return `${model.name} has no version ${wanted.version}. ${instead}`;
  return "";
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
  showPinned();
});
$("first-two").addEventListener("click", () => {
  [state.start, state.end] = grid.indices.map((index) => model.point(state, index));
  showPinned();
  between.see();
});
$("see-way").addEventListener("click", () => {
  $("detail").close();
  between.see();
});
// A link sends no key: with one, the report is saved by script.
$("report").addEventListener("click", (event) => {
  if (!key()) return;
  event.preventDefault();
  attempt($("notice"), async () => save(await blob(model.report), `${model.name}-${model.version}-report.html`));
});
addEventListener("popstate", () => {
  const { image } = read(location.search);
  if (image === null) $("detail").close();
  else detail.open(model, state, image);
});
if (matchMedia("(max-width: 40rem)").matches) $("fold").open = false;
wire();
$("notice").textContent = (await attempt($("notice"), begin)) ?? $("notice").textContent;
