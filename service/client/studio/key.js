// The API key, where the service wants one: asked for once, kept for this tab, sent with requests.

const dialog = document.getElementById("key");
const field = document.getElementById("key-given");
const KEPT = "figment-key";
let asking;

export const key = () => sessionStorage.getItem(KEPT);
export const authorization = () => (key() ? { Authorization: `Bearer ${key()}` } : {});

/** Ask the person for a key; however many requests want one at a time, once. `why` is told. */
export function askForKey(why) {
  asking ??= new Promise((resolve) => {
    document.getElementById("key-why").textContent = why;
    field.value = "";
    dialog.showModal();
    dialog.querySelector("form").addEventListener(
      "submit",
      () => {
        sessionStorage.setItem(KEPT, field.value.trim());
        asking = undefined;
        resolve();
      },
      { once: true },
    );
  });
  return asking;
}

dialog.addEventListener("cancel", (event) => event.preventDefault()); // nothing works without
