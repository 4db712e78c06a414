// Model card: quality, training data, licence.

import { $, make } from "./page.js";
import { attempt, blob } from "./server.js";

const SAMPLES = 64;

let stop;

const figure = (value) => (value === null ? "" : Number(value.toPrecision(3)).toString());

export async function showCard(model) {
  const { manifest } = model;
  const { dataset, training, code_version: code, date } = manifest.provenance;
  $("card-title").textContent = `${model.name}, version ${model.version}`;
  const facts = {
    Images: `${manifest.width} by ${manifest.height}, ${manifest.channels === 1 ? "grey" : "colour"}`,
    Labels: manifest.attributes.map(({ name, values }) => `${name} (${values.length})`).join(", ") || "none",
    "Training data": `${dataset.name}, ${dataset.images.toLocaleString("en")} images`,
    Licence: dataset.licence,
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
  $("card").showModal();
  stop?.abort();
  stop = new AbortController();
  const { signal } = stop;
  URL.revokeObjectURL($("samples").src);
  $("samples").removeAttribute("src");
  const body = { model: model.name, version: model.version, n: SAMPLES, seed: 1 };
  const sheet = await attempt($("trouble-card"), () =>
    blob("/generate?format=png", { body, signal }),
  );
  if (sheet) $("samples").src = URL.createObjectURL(sheet);
}
