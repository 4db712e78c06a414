// The API key, if the service requires one: requested once, kept for this tab, sent with requests.

const dialog = document.getElementById("key");
const field = document.getElementById("key-given");
const STORAGE_KEY = "figment-key";
let pending;

export const key = () => sessionStorage.getItem(STORAGE_KEY);
export const authorization = () => (key() ? { Authorization: `Bearer ${key()}` } : {});

/** Show the dialog for a key, once for all requests that wait for one. `reason` is shown there. */
export function requestKey(reason) {
  pending ??= new Promise((resolve) => {
    document.getElementById("key-why").textContent = reason;
    field.value = "";
    dialog.showModal();
    dialog.querySelector("form").addEventListener(
      "submit",
      () => {
        sessionStorage.setItem(STORAGE_KEY, field.value.trim());
        pending = undefined;
        resolve();
      },
      { once: true },
    );
  });
  return pending;
}

dialog.addEventListener("cancel", (event) => event.preventDefault()); // the page cannot work without a key
