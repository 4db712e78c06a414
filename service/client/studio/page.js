// Helpers for the document. Texts are set as text, never as HTML.

export const $ = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Address of a path of the service, which a proxy may serve below a path of its own. */
export const at = (path) => new URL(`.${path}`, document.baseURI).href;

/** Address of the service itself, without a slash at its end. */
export const service = () => at("").replace(/\/$/, "");

export const png = (data) => `data:image/png;base64,${data}`;

export function save(content, name) {
  const link = make("a", { href: URL.createObjectURL(content), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** Buttons that copy the text of another element, and those that close their dialog. */
export function wire() {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const source = $(button.dataset.copy);
      getSelection().selectAllChildren(source);
      // Browsers give the clipboard to https and localhost only; elsewhere the text is selected.
      const copying = navigator.clipboard?.writeText(source.textContent) ?? Promise.reject();
      button.textContent = await copying.then(() => "Copied", () => "Selected");
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  }
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
}
