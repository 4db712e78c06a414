// A version of a model: phrases for its labels, and addresses of its images.

import { json } from "./server.js";

export class Model {
  constructor(name, about, labels) {
    this.name = name;
    this.version = about.version;
    this.verifiable = about.verifier_sha256 !== null;
    this.manifest = about.manifest;
    this.sha256 = about.sha256;
    this.report = about.report; // its path, if there is one
    this.recommendation = about.recommendation;
    /** Each with `name`, `values`, and in `labels` a phrase for each value. */
    this.attributes = labels.attributes;
  }

  static async load(name, version) {
    const [about, labels] = await Promise.all([
      json(`/models/${encodeURIComponent(name)}/${version}`),
      json(`/models/${encodeURIComponent(name)}/labels?version=${version}`),
    ]);
    return new Model(name, about, labels);
  }

  /** Show the rights in the training images; a warning if nobody has cleared them. */
  showRights(element) {
    const { licence } = this.manifest.provenance.dataset;
    element.textContent = `Rights in the training images: ${licence}`;
    element.classList.toggle("warning", /\b(unknown|unclear)\b/i.test(licence));
  }

  /** The subset of `labels` that the model knows. */
  known(labels) {
    return Object.fromEntries(
      this.attributes
        .filter(({ name, values }) => Object.hasOwn(labels, name) && values.includes(labels[name]))
        .map(({ name }) => [name, labels[name]]),
    );
  }

  /** `{eyes: "red"}` as "red eyes"; null if nothing is chosen. */
  phrase(labels) {
    const chosen = this.attributes.filter(({ name }) => Object.hasOwn(labels, name));
    return (
      chosen
        .map(({ name, values, labels: phrases }) => phrases[values.indexOf(labels[name])])
        .join(", ") || null
    );
  }

  /** Fields that all requests for images with these choices share. */
  request(state) {
    const body = { model: this.name, version: this.version, seed: state.seed };
    const label = this.phrase(state.labels);
    if (label) body.label = label;
    if (state.truncation !== 1) body.truncation = state.truncation;
    if (state.verify && this.verifiable) body.verify = state.verify;
    return body;
  }

  /** An image with these choices, as requests name one. */
  point({ seed, truncation, labels }, index) {
    const point = { seed, index, truncation };
    const label = this.phrase(labels);
    return label ? { ...point, label } : point;
  }

  /** The permanent address of an image, spelled as the service does. */
  address({ seed, index, truncation, label }) {
    const query = new URLSearchParams();
    if (label) query.set("label", label);
    if (truncation !== 1) query.set("truncation", truncation);
    const path = `/images/${this.name}/${this.version}/${seed}/${index}.png`;
    return query.size ? `${path}?${query}` : path;
  }
}
