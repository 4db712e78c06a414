// Model card: how good it is, samples, rights in the training images; the rest is folded.

import { $, make } from "./page.js";
import { attempt, BLANK, blob } from "./server.js";

const SIDE = 8; // images

/** Metrics that say most, and the share that each is. */
const VERDICT = {
  "all labels read as asked": "of the images show what their labels say, as a classifier reads them",
  precision: "of the images look like real ones",
  recall: "of real images have one like them here",
};

let stop;

const figure = (value) => (value === null ? "" : Number(value.toPrecision(3)).toString());
const percent = (share) => `${Math.round(100 * share)} %`;

function verdict({ name, value, real }) {
  const beside = real === null ? "" : ` (real images: ${percent(real)})`;
  return make("li", {}, make("strong", {}, percent(value)), ` ${VERDICT[name]}${beside}.`);
}

export async function showCard(model) {
  const { manifest } = model;
  const { dataset, training, code_version: code, date } = manifest.provenance;
  $("card-title").textContent = `${model.name}, version ${model.version}`;
  $("recommendation").textContent = model.recommendation ?? "";
  const verdicts = Object.keys(VERDICT).flatMap((name) => manifest.metrics.filter((each) => each.name === name));
  $("verdict").replaceChildren(...verdicts.map(verdict));
  if (!verdicts.length) $("verdict").append(make("li", {}, "Its quality was not measured."));
  model.showRights($("card-rights"));
  const facts = {
    Images: `${manifest.width} by ${manifest.height}, ${manifest.channels === 1 ? "grey" : "colour"}`,
    Labels: manifest.attributes.map(({ name, values }) => `${name} (${values.length})`).join(", ") || "none",
    "Training data": `${dataset.name}, ${dataset.images.toLocaleString("en")} images`,
    "Data's SHA-256": dataset.sha256,
    "Model's SHA-256": model.sha256,
    Made: `${date}, by Figment ${code}, latent recipe ${manifest.latent_recipe}`,
    Training: Object.entries(training).map(([name, value]) => `${name}: ${value ?? "none"}`).join(", "),
  };
  $("facts").replaceChildren(
    ...Object.entries(facts).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]),
  );
  const rows = manifest.metrics.map(({ name, value, samples, against, real }) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, name.replaceAll("_", " ")),
      make("td", { className: "number" }, figure(value)),
      make("td", { className: "number" }, figure(real)),
      make("td", { className: "number" }, samples.toLocaleString("en")),
      make("td", {}, against),
    ),
  );
  if (!rows.length) rows.push(make("tr", {}, make("td", { colSpan: 5 }, "No metrics.")));
  $("metrics").tBodies[0].replaceChildren(...rows);
  const samples = $("samples");
  URL.revokeObjectURL(samples.src);
  Object.assign(samples, { src: BLANK, width: SIDE * manifest.width, height: SIDE * manifest.height });
  $("card").showModal();
  stop?.abort();
  stop = new AbortController();
  const { signal } = stop;
  const body = { model: model.name, version: model.version, n: SIDE * SIDE, seed: 1 };
  const sheet = await attempt($("trouble-card"), () =>
    blob("/generate?format=png", { body, signal }),
  );
  if (sheet) samples.src = URL.createObjectURL(sheet);
}
