// One image, large: its address, its labels with the verifier's probabilities, code that makes it
// again, and its variations.

import { $, at, make, png, save, service, shell } from "./page.js";
import { key } from "./key.js";
import { attempt, BLANK, blob, json, pause, show } from "./server.js";

const NEIGHBOURS = 10;
const SETTLE_SECONDS = 0.15;
const ANY = 1e-300; // every image passes, and the answer has the probabilities

export class Detail {
  /**
   * `moved(index)`: the image shown changed, null when closed. `pin(end, point, model)`: an image
   * was pinned. `beside(index, by)`: index of the previous or next image.
   */
  constructor(moved, pin, beside) {
    this.moved = moved;
    this.beside = beside;
    $("detail").addEventListener("close", () => {
      this.stop?.abort();
      this.varying?.abort();
      this.moved(null);
    });
    $("detail").addEventListener("keydown", (event) => {
      if (event.target.matches("input, pre")) return;
      if (event.key === "ArrowLeft") this.step(-1);
      if (event.key === "ArrowRight") this.step(1);
    });
    $("previous").addEventListener("click", () => this.step(-1));
    $("next").addEventListener("click", () => this.step(1));
    $("strength").addEventListener("input", () => {
      $("strength-said").textContent = $("strength").value;
    });
    $("strength").addEventListener("change", () => this.showVariations());
    // A link sends no key: with one, the image is fetched and saved by script.
    for (const link of [$("address"), $("save")]) {
      link.addEventListener("click", (event) => {
        if (!key()) return;
        event.preventDefault();
        attempt($("trouble-detail"), async () => save(await blob($("address").textContent), $("save").download));
      });
    }
    for (const button of document.querySelectorAll("[data-pin]")) {
      button.addEventListener("click", () => {
        this.state[button.dataset.pin] = this.point;
        pin(button.dataset.pin, this.point, this.model);
        this.showPins();
      });
    }
  }

  get point() {
    return this.model.point(this.state, this.index);
  }

  showPins() {
    for (const button of document.querySelectorAll("[data-pin]")) {
      const end = button.dataset.pin;
      const pinned = this.state[end] && this.model.address(this.state[end]) === this.model.address(this.point);
      button.textContent = pinned ? `Pinned as ${end}` : `Pin as ${end}`;
      button.ariaPressed = String(Boolean(pinned));
    }
    $("see-way").disabled = !this.state.start || !this.state.end;
  }

  step(by) {
    const index = this.beside(this.index, by);
    if (index !== null) this.open(this.model, this.state, index);
  }

  async open(model, state, index) {
    this.stop?.abort();
    this.varying?.abort();
    this.stop = new AbortController();
    Object.assign(this, { model, state: structuredClone(state), index });
    const url = model.address(this.point);
    const { width, height } = model.manifest;
    $("detail-title").textContent = `Image ${index} of seed ${state.seed}`;
    const alt = `Image ${index}, ${model.phrase(state.labels) ?? "labels as drawn"}`;
    Object.assign($("large"), { alt, width, height });
    show($("large"), url);
    $("address").href = $("save").href = at(url);
    $("address").textContent = url;
    $("save").download = `${model.name}-${model.version}-${state.seed}-${index}.png`;
    const opens = key() ? '-H "Authorization: Bearer $FIGMENT_API_KEY" ' : "";
    $("curl").textContent = `curl -s ${opens}${shell(at(url))} -o ${$("save").download}`;
    $("python").textContent = this.program();
    this.showPins();
    $("labels").hidden = !model.attributes.length;
    this.fillLabels(model.attributes.map(({ name }) => [name, "…", model.verifiable ? null : undefined]));
    $("neighbours").inert = true; // those of another image
    if (!$("neighbours").childElementCount) this.fillNeighbours(Array(NEIGHBOURS).fill({ src: BLANK, alt: "" }));
    $("strength-said").textContent = $("strength").value;
    if (!$("detail").open) $("detail").showModal();
    this.moved(index);
    const { signal } = this.stop;
    const settled = await attempt($("trouble-detail"), async () => {
      await pause(SETTLE_SECONDS, signal); // load nothing for images that are skipped quickly
      return true;
    });
    if (settled) await Promise.all([this.showLabels(), this.showVariations()]);
  }

  program() {
    const { model, version, seed, label, truncation } = this.model.request(this.state);
    const named = { model, version, seed, offset: this.index, label, truncation };
    const keywords = Object.entries(named)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => `${name}=${JSON.stringify(value)}`);
    return (
      "from service.client import Figment\n\n" +
      `images, labels = Figment(${JSON.stringify(service())}).generate(\n` +
      `    1, ${keywords.join(", ")}\n)`
    );
  }

  /** Show the labels of the image, with the verifier's probability of each. */
  async showLabels() {
    const { signal } = this.stop;
    const body = { ...this.model.request(this.state), offset: this.index };
    delete body.verify;
    const labels = await attempt($("trouble-detail"), async () => {
      const { images } = await json("/generate", { body, signal });
      const [{ labels }] = images;
      if (!labels || !this.model.verifiable) return { labels, verified: {} };
      // With all of its labels, the request gives the same image.
      const labelled = { ...body, label: labels, verify: ANY };
      const [row] = (await json("/generate", { body: labelled, signal })).images;
      return row.index === this.index ? row : { labels, verified: {} };
    });
    if (!labels || signal.aborted) return;
    this.fillLabels(
      Object.entries(labels.labels ?? {}).map(([name, value]) => [name, value, labels.verified[name]]),
    );
  }

  fillLabels(labels) {
    const rows = labels.map(([name, value, probability]) => {
      const row = make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value));
      if (probability !== undefined) {
        const meter = make("meter", { min: 0, max: 1, value: probability ?? 0 });
        meter.setAttribute("aria-label", `The classifier's probability of ${value}`);
        const percent = probability === null ? "…" : `${(100 * probability).toFixed(1)} %`;
        row.append(make("td", {}, meter), make("td", { className: "number" }, percent));
      }
      return row;
    });
    $("labels").tBodies[0].replaceChildren(...rows);
  }

  async showVariations() {
    this.varying?.abort();
    this.varying = new AbortController();
    const { signal } = this.varying;
    const body = {
      of: this.point,
      strength: Number($("strength").value),
      n: NEIGHBOURS,
      seed: this.state.seed,
      model: this.model.name,
      version: this.model.version,
    };
    const answer = await attempt($("trouble-detail"), () => json("/variations", { body, signal }));
    if (!answer || signal.aborted) return;
    this.fillNeighbours(answer.images.map(({ index, data }) => ({ src: png(data), alt: `Variation ${index}` })));
    $("neighbours").inert = false;
  }

  fillNeighbours(images) {
    const { width, height } = this.model.manifest;
    $("neighbours").replaceChildren(
      ...images.map((image) => make("li", {}, make("img", { ...image, width, height }))),
    );
  }
}
