// A version of a model: phrases for its labels, and addresses of its images.

import { json } from "./server.js";

export class Model {
  constructor(name, about, labels) {
    this.name = name;
    this.version = about.version;
    this.verifiable = about.verifier_sha256 !== null;
    this.manifest = about.manifest;
    this.sha256 = about.sha256;
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

  /** The permanent address of an image, spelled as the service does. */
  address(state, index) {
    const query = new URLSearchParams();
    const label = this.phrase(state.labels);
    if (label) query.set("label", label);
    if (state.truncation !== 1) query.set("truncation", state.truncation);
    const path = `/images/${this.name}/${this.version}/${state.seed}/${index}.png`;
    return query.size ? `${path}?${query}` : path;
  }
}
